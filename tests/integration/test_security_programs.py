"""Whoever is not let in is told once: every command, with any password or certificate that is wrong."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from secure_kafka import make_certificate
from secure_programs import Command, CountingProxy

pytestmark = [pytest.mark.docker, pytest.mark.slow]
SECRET = "xyzzy-known-only-here"
FAULTS = {
    "wrong password": ("scram", {"sasl_password": SECRET}, "kafka.sasl_password"),
    "unknown user": ("scram", {"sasl_username": "nobody", "sasl_password": SECRET}, "kafka.sasl_username"),
    "unknown CA": ("scram", {"tls_ca_file": None}, "kafka.tls_ca_file"),
    "no client certificate": ("mutual_tls", {"tls_cert_file": None, "tls_key_file": None}, "client certificate"),
}
COMMANDS = (["updater"], ["worker"], ["topics", "create"], ["replay", "--requests", "1"])


@pytest.mark.parametrize("fault", FAULTS)
def test_whoever_is_not_let_in_is_told_once(secure_kafka, tmp_path, tiny_bundle_folder, fault):
    """A wrong password or certificate ends every command in one line after few connections, without the secret."""
    listener, changes, said = FAULTS[fault]
    settings = getattr(secure_kafka, listener)(**changes)
    target = int(settings.bootstrap_servers.split(":")[1])
    with CountingProxy(target) as proxy:
        refused(settings, proxy, said, tmp_path, tiny_bundle_folder)


CERTIFICATES = {
    "expired": ("DNS:localhost", -1, "certificate has expired"),
    "for another host": ("DNS:elsewhere.example", 2, "localhost"),
}


@pytest.mark.parametrize("fault", CERTIFICATES)
def test_a_broker_with_a_bad_certificate_is_told_once(secure_kafka, tmp_path, tiny_bundle_folder, fault):
    """An expired certificate, or one for another host, ends every command in one line after few connections."""
    names, days, said = CERTIFICATES[fault]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate(secure_kafka.folder, tmp_path, names, days))
    with CountingProxy(0, context) as proxy:
        refused(secure_kafka.scram(sasl_password=SECRET), proxy, said, tmp_path, tiny_bundle_folder)


def refused(settings, proxy, said, folder, bundle):
    """Every command, started through the proxy, ends as it should."""
    through = settings.model_copy(update={"bootstrap_servers": f"localhost:{proxy.port}", "connect_timeout_s": 5.0})
    with contextlib.ExitStack() as started:
        commands = [started.enter_context(Command(one, through, folder, bundle)) for one in COMMANDS]
        for command in commands:
            assert command.ended() == 1, command.output
            assert said in command.error
            assert SECRET not in command.output
    assert 0 < proxy.connections <= 8 * len(COMMANDS)
