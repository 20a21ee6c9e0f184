"""Connecting to a secured Kafka, and one-line errors when that fails."""

from __future__ import annotations

import pytest

from loadgen.kafka_container import KafkaContainer
from runtime.errors import BrokerUnreachable
from runtime.kafka import RecordSink, TopicFollower, create_missing_topics, probe
from runtime.records import OutRecord
from runtime.topic_specs import TopicSpec


@pytest.mark.parametrize("way", ["scram", "mutual_tls"])
async def test_records_pass_through_a_secured_listener(secure_kafka, way):
    """SCRAM over TLS under a private CA, and mutual TLS, carry records in both directions."""
    settings = getattr(secure_kafka, way)()
    await create_missing_topics(settings, [TopicSpec(f"secured-{way}", 1)])
    async with RecordSink(settings) as sink:
        await sink.send_and_wait(OutRecord(f"secured-{way}", b"k", b"v"))
    follower = TopicFollower(settings, [f"secured-{way}"])
    await follower.start()
    assert [record.value for record in await follower.poll(timeout_ms=5_000)] == [b"v"]
    await follower.stop()


async def test_a_wrong_password_is_named_at_once(secure_kafka):
    """A password that is wrong ends in one line that names the setting, without waiting for the time-out."""
    settings = secure_kafka.scram(sasl_password="wrong", connect_timeout_s=3_600.0)
    assert "sasl_password" in await cause(settings)


async def test_a_certificate_of_an_unknown_ca_is_named_at_once(secure_kafka):
    """A broker whose CA is not known here ends in one line that names the setting."""
    settings = secure_kafka.scram(tls_ca_file=None, connect_timeout_s=3_600.0)
    assert "tls_ca_file" in await cause(settings)


async def test_a_missing_client_certificate_is_named(secure_kafka):
    """Where the listener wants a client certificate and there is none, the line says so."""
    settings = secure_kafka.mutual_tls(tls_cert_file=None, tls_key_file=None, connect_timeout_s=1.0)
    assert "certificate" in await cause(settings)


async def test_a_plain_connection_to_a_secured_listener_is_explained(secure_kafka):
    """Without TLS where TLS is wanted, the line names the setting that decides it."""
    address = secure_kafka.scram().bootstrap_servers
    settings = secure_kafka.scram().model_copy(update={"security_protocol": "PLAINTEXT", "connect_timeout_s": 1.0})
    line = await cause(settings)
    assert address in line
    assert "security_protocol" in line


def test_advertised_addresses_that_lead_nowhere_are_named(docker_engine):  # noqa: ARG001 - skips without Docker
    """A broker that answers but sends its clients elsewhere is the commonest mistake: the line names it."""
    nowhere = {"KAFKA_ADVERTISED_LISTENERS": "EXT://127.0.0.1:1,INT://localhost:9094"}
    with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1:1: connection refused.*advertised\.listeners"):
        KafkaContainer(settings=nowhere).__enter__()


async def cause(settings):
    """The one line in which a probe ends."""
    with pytest.raises(BrokerUnreachable) as raised:
        await probe(settings)
    line = str(raised.value)
    assert "\n" not in line
    return line
