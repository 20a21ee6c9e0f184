"""A broker with SCRAM over TLS, mutual TLS and an authorizer, under a private CA made by the openssl command."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from acls import Acl
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from testcontainers.core.container import DockerContainer

from loadgen.kafka_container import DEFAULT_IMAGE, START_LIMIT_S, broker_settings
from loadgen.processes import free_port
from runtime.kafka import probe
from runtime.settings import KafkaSettings

USER, PASSWORD = "scorer", "a pass-word"
"""A user who may do anything; others may do what `grant` allows them."""


class SecureKafka:
    """The broker's container and what a client needs to get in.

    Args:
        folder: for keys and certificates; empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._scram_port, self._mutual_port = free_port(), free_port()
        self._container: DockerContainer | None = None

    def scram(self, **changes) -> KafkaSettings:
        """Settings for SCRAM over TLS."""
        settings = {
            "bootstrap_servers": f"localhost:{self._scram_port}",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": USER,
            "sasl_password": PASSWORD,
            "tls_ca_file": self.folder / "ca.pem",
            "connect_timeout_s": 10.0,
        }
        return KafkaSettings(**{**settings, **changes})

    def mutual_tls(self, **changes) -> KafkaSettings:
        """Settings for mutual TLS."""
        settings = {
            "bootstrap_servers": f"localhost:{self._mutual_port}",
            "security_protocol": "SSL",
            "tls_ca_file": self.folder / "ca.pem",
            "tls_cert_file": self.folder / "client.pem",
            "tls_key_file": self.folder / "client.key",
            "connect_timeout_s": 10.0,
        }
        return KafkaSettings(**{**settings, **changes})

    def grant(self, user: str, acls: Sequence[Acl]) -> KafkaSettings:
        """Makes a user with exactly these permissions; settings for that user."""
        admin = self._admin()  # its requests end with it
        information = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4_096)
        upsertion = UserScramCredentialUpsertion(user, information, f"{user}-pass".encode())
        for done in admin.alter_user_scram_credentials([upsertion]).values():
            done.result(30)
        self.allow(user, acls)
        return self.scram(sasl_username=user, sasl_password=f"{user}-pass")

    def allow(self, user: str, acls: Sequence[Acl]) -> None:
        """Grants a user further permissions."""
        admin = self._admin()
        for done in admin.create_acls([acl.binding(user) for acl in acls]).values():
            done.result(30)

    def _admin(self) -> AdminClient:
        return AdminClient(
            {
                "bootstrap.servers": f"localhost:{self._scram_port}",
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": USER,
                "sasl.password": PASSWORD,
                "ssl.ca.location": str(self.folder / "ca.pem"),
            }
        )

    def __enter__(self) -> Self:
        make_certificates(self.folder)
        container = DockerContainer(os.environ.get("KAFKA_IMAGE", DEFAULT_IMAGE)).with_envs(**self._variables())
        container.with_volume_mapping(str(self.folder), "/tls", "ro")
        container.ports["9092/tcp"] = ("127.0.0.1", self._scram_port)
        container.ports["9095/tcp"] = ("127.0.0.1", self._mutual_port)
        self._container = container.start()
        try:
            patient = self.mutual_tls(connect_timeout_s=START_LIMIT_S)
            asyncio.run(probe(patient))
            self._add_user()
        except BaseException:
            container.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._container.stop()

    def _variables(self) -> dict[str, str]:
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return {
            **broker_settings(self._scram_port),
            "KAFKA_LISTENERS": "EXT://:9092,MUTUAL://:9095,INT://:9094,CONTROLLER://:9093",
            "KAFKA_ADVERTISED_LISTENERS": (
                f"EXT://localhost:{self._scram_port},MUTUAL://localhost:{self._mutual_port},INT://localhost:9094"
            ),
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "EXT:SASL_SSL,MUTUAL:SSL,INT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_AUTHORIZER_CLASS_NAME": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "KAFKA_SUPER_USERS": f"User:ANONYMOUS;User:{USER};User:CN=client",
            "KAFKA_SASL_ENABLED_MECHANISMS": "SCRAM-SHA-512",
            "KAFKA_LISTENER_NAME_EXT_SCRAM___SHA___512_SASL_JAAS_CONFIG": scram,
            "KAFKA_LISTENER_NAME_MUTUAL_SSL_CLIENT_AUTH": "required",
            "KAFKA_SSL_KEYSTORE_TYPE": "PEM",
            "KAFKA_SSL_KEYSTORE_LOCATION": "/tls/server-keystore.pem",
            "KAFKA_SSL_TRUSTSTORE_TYPE": "PEM",
            "KAFKA_SSL_TRUSTSTORE_LOCATION": "/tls/ca.pem",
        }

    def _add_user(self) -> None:
        make_user = ["--alter", "--entity-type", "users", "--entity-name", USER]
        with_password = ["--add-config", f"SCRAM-SHA-512=[password={PASSWORD}]"]
        tool = ["/opt/kafka/bin/kafka-configs.sh", "--bootstrap-server", "localhost:9094"]
        exit_code, output = self._container.exec([*tool, *make_user, *with_password])
        if exit_code:
            raise RuntimeError(f"the SCRAM user was not made: {output.decode()}")


def make_certificates(folder: Path) -> None:
    """A CA, and certificates of it for the server (localhost) and a client."""
    _openssl(folder, "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem")
    (folder / "names.cnf").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n", encoding="ascii")
    for name in ("server", "client"):
        _openssl(folder, f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr")
        signing = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names.cnf"
        _openssl(folder, f"x509 -req -in {name}.csr {signing} -out {name}.pem")
    keystore = (folder / "server.key").read_text(encoding="ascii") + (folder / "server.pem").read_text(encoding="ascii")
    (folder / "server-keystore.pem").write_text(keystore, encoding="ascii")
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)  # the broker runs as another user


def make_certificate(authority: Path, folder: Path, names: str, days: int) -> tuple[Path, Path]:
    """A certificate of the CA in another folder, and its key.

    Args:
        authority: the folder of the CA.
        folder: where to write.
        names: the subject's alternative names, as openssl takes them.
        days: how long it is valid from now on; below 0 it has expired.
    """
    (folder / "other.cnf").write_text(f"subjectAltName={names}\n", encoding="ascii")
    _openssl(folder, "req -newkey rsa:2048 -nodes -subj /CN=other -keyout other.key -out other.csr")
    signing = f"-CA {authority / 'ca.pem'} -CAkey {authority / 'ca.key'} -set_serial 7 -days {days} -extfile other.cnf"
    _openssl(folder, f"x509 -req -in other.csr {signing} -out other.pem")
    return folder / "other.pem", folder / "other.key"


def _openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True)
