"""Real Kafka for the tests of this folder: one plaintext broker and, where asked for, a secured one."""

from __future__ import annotations

import re

import pytest
from brokers import TestBroker


@pytest.fixture(scope="session")
def kafka_container(docker_engine):  # noqa: ARG001 - skips where there is no Docker
    """Apache Kafka in a container, for the whole session."""
    from loadgen.kafka_container import KafkaContainer  # noqa: PLC0415 - needs testcontainers, which needs Docker

    with KafkaContainer() as container:
        yield container


@pytest.fixture
def broker(kafka_container, request):
    """The real broker, with names of this test's own."""
    return TestBroker(kafka_container.bootstrap_servers, re.sub(r"\W", "-", request.node.name)[:80])


@pytest.fixture(scope="session")
def secure_kafka(docker_engine, tmp_path_factory):  # noqa: ARG001 - skips where there is no Docker
    """A broker that wants SCRAM over TLS on one port and client certificates on another."""
    from secure_kafka import SecureKafka  # noqa: PLC0415 - needs testcontainers, which needs Docker

    with SecureKafka(tmp_path_factory.mktemp("tls")) as kafka:
        yield kafka
