"""Connecting: arguments for the client, TLS, and a probe that says why a connection fails.

aiokafka only says "Unable to bootstrap" and leaves the cause in its log. The probe opens the connections itself, so it
knows the cause.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Final

import structlog
from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from runtime.errors import BrokerUnreachable, SettingsError
from runtime.kafka.lost_connections import lose_closed_connections
from runtime.settings import KafkaSettings

_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 2.0
"""Between attempts the pause doubles: a broker that turns us away is not asked sixty times."""
_Address = tuple[str, int]


class _NotInService(Exception):
    """A broker answers and names no broker: it has just come back, or cannot reach its controllers."""


NOT_IN_SERVICE: Final = "it answers but is not in service; is it starting, or cut off from its controllers?"
_EXPLANATIONS: Final = (
    (_NotInService, NOT_IN_SERVICE),
    (SaslAuthenticationFailed, "wrong user name or password (kafka.sasl_username, kafka.sasl_password)"),
    (UnsupportedSaslMechanismError, "the broker does not offer this kafka.sasl_mechanism"),
    (ConnectionRefusedError, "connection refused; is a broker running there?"),
    (socket.gaierror, "the host name is unknown; check kafka.bootstrap_servers"),
    (TimeoutError, "no answer in time; check address, firewall and kafka.security_protocol"),
    (
        (KafkaConnectionError, NodeNotReadyError, ConnectionError),
        "it closed the connection each time; do kafka.security_protocol and client certificate fit the listener?",
    ),
)
"""The first match counts, so narrow types come first."""
log = structlog.get_logger(__name__)
lose_closed_connections()  # here, because every client takes its arguments from here


def connection_arguments(settings: KafkaSettings) -> dict[str, Any]:
    """What every aiokafka client takes to connect.

    Raises:
        SettingsError: if a TLS file cannot be used.
    """
    password = settings.sasl_password
    return {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        "request_timeout_ms": settings.request_timeout_ms,
        "metadata_max_age_ms": 60_000,
        "security_protocol": settings.security_protocol,
        "ssl_context": _tls_context(settings) if "SSL" in settings.security_protocol.split("_") else None,
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": password.get_secret_value() if password else None,
    }


async def probe(settings: KafkaSettings) -> None:
    """Connects to the bootstrap servers and to the brokers that they name, waiting for a broker that is still starting.

    Raises:
        BrokerUnreachable: the cause per address, in words, once `connect_timeout_s` is over; at once for a wrong
            password, mechanism or certificate, where waiting does not help.
        SettingsError: if a TLS file cannot be used.
    """
    arguments = connection_arguments(settings)
    addresses = [(host, port) for host, port, _ in collect_hosts(arguments.pop("bootstrap_servers"))]
    arguments.pop("metadata_max_age_ms")
    arguments["request_timeout_ms"] = int(settings.connect_timeout_s * 1000)
    advertised = await _retry_until_answered(addresses, arguments, settings.connect_timeout_s)
    reachable, causes = await _first_answer(advertised, arguments)
    if not reachable:
        raise BrokerUnreachable(
            f"{settings.bootstrap_servers} answers, but the brokers it names cannot be reached ({_no_answer(causes)}); "
            "check advertised.listeners of the brokers"
        ) from next(iter(causes.values()))


async def _retry_until_answered(addresses: list[_Address], arguments: dict[str, Any], limit_s: float) -> list[_Address]:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + limit_s
    pause_s, logged = _FIRST_PAUSE_S, False
    while True:
        advertised, causes = await _first_answer(addresses, arguments)
        if advertised:
            return advertised
        waiting_helps = any(_may_be_transient(cause) for cause in causes.values())
        if not waiting_helps or loop.time() > give_up_at:
            raise BrokerUnreachable(_no_answer(causes)) from next(iter(causes.values()))
        if not logged:
            log.info("waiting for the broker", cause=_no_answer(causes), limit_s=limit_s)
            logged = True
        await asyncio.sleep(min(pause_s, max(0.0, give_up_at - loop.time())))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


async def _first_answer(
    addresses: list[_Address], arguments: dict[str, Any]
) -> tuple[list[_Address], dict[_Address, BaseException]]:
    """The brokers named by the first address that answers; if none does, why not."""
    causes: dict[_Address, BaseException] = {}
    for host, port in addresses:
        connection: AIOKafkaConnection | None = None
        try:
            connection = await create_conn(host, port, **arguments)
            metadata = await connection.send(MetadataRequest([]))
            brokers = [(broker[1], broker[2]) for broker in metadata.brokers]
        except (TimeoutError, OSError, KafkaError) as error:
            causes[host, port] = error
        else:
            if brokers:
                return brokers, {}
            causes[host, port] = _NotInService()
        finally:
            if connection is not None:
                connection.close()
    return [], causes


def _may_be_transient(cause: BaseException) -> bool:
    return not isinstance(cause, SaslAuthenticationFailed | UnsupportedSaslMechanismError | ssl.SSLError)


def _no_answer(causes: dict[_Address, BaseException]) -> str:
    return "; ".join(f"no connection to {host}:{port}: {in_words(cause)}" for (host, port), cause in causes.items())


def in_words(cause: BaseException) -> str:
    """The cause of a failed connection and what to do about it."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({cause.verify_message}); set kafka.tls_ca_file to its CA's"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed ({cause.reason or cause}); do kafka.security_protocol and the certificates fit?"
    said = next((words for kinds, words in _EXPLANATIONS if isinstance(cause, kinds)), None)
    return said or str(cause) or repr(cause)


def _tls_context(settings: KafkaSettings) -> ssl.SSLContext:
    password = settings.tls_key_password
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_cert_file:
            context.load_cert_chain(
                settings.tls_cert_file, settings.tls_key_file, password.get_secret_value() if password else None
            )
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(
            str(path) for path in (settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file) if path
        )
        raise SettingsError(f"the TLS files ({files}) cannot be used: {error}") from error
    context.check_hostname = settings.tls_verify_hostname
    return context
