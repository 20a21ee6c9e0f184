"""The causes of a failed connection, in words."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiokafka.protocol.admin import ApiVersionResponse_v0
from aiokafka.protocol.metadata import MetadataResponse_v0, MetadataResponse_v1

from runtime.errors import BrokerUnreachable, SettingsError
from runtime.kafka import RecordSink, TransactionalSink, probe
from runtime.settings import KafkaSettings


def nowhere(address, **changes):
    """Settings that lead to no broker."""
    return KafkaSettings(bootstrap_servers=address, connect_timeout_s=0.3, **changes)


async def test_a_refused_connection_is_called_so():
    """Every address is named with its cause, in one line."""
    with pytest.raises(BrokerUnreachable) as raised:
        await probe(nowhere("127.0.0.1:1,localhost:2"))
    assert "127.0.0.1:1: connection refused" in str(raised.value)
    assert "localhost:2: connection refused" in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_an_unknown_host_is_called_so():
    """An unresolvable host name points to the setting."""
    with pytest.raises(BrokerUnreachable, match="the host name is unknown; check kafka"):
        await probe(nowhere("nobody.invalid:9092"))


async def test_a_listener_that_says_nothing_does_not_hold_the_start_for_ever():
    """A listener that accepts but never answers ends in the time-out, which the error names."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(BrokerUnreachable, match="no answer in time"),
    ):
        await probe(nowhere(f"127.0.0.1:{silent.getsockname()[1]}"))


async def test_a_probe_waits_for_a_broker_that_is_starting(embedded_broker):
    """A refused connection is tried again until the time-out: programs and broker may start together."""
    host, port = embedded_broker.bootstrap_servers.split(":")
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        late = reserved.getsockname()[1]

    async def forward(reader, writer):
        upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pipe(reader, upstream_writer), pipe(upstream_reader, writer))

    async def pipe(reader, writer):
        while data := await reader.read(4_096):
            writer.write(data)
        writer.close()

    waiting = asyncio.create_task(probe(KafkaSettings(bootstrap_servers=f"127.0.0.1:{late}", connect_timeout_s=20)))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    async with await asyncio.start_server(forward, "127.0.0.1", late):
        await waiting


async def test_tls_files_that_cannot_be_used_are_named(tmp_path):
    """A missing or broken file is a wrong setting, not a traceback."""
    broken = tmp_path / "ca.pem"
    broken.write_text("not a certificate")
    for path in (tmp_path / "missing.pem", broken):
        with pytest.raises(SettingsError, match=path.name):
            await probe(nowhere("127.0.0.1:1", security_protocol="SSL", tls_ca_file=path))


async def out_of_service(reader, writer):
    """A broker that has just come back: it answers, and names no broker."""
    while size := await reader.read(4):
        request = await reader.readexactly(int.from_bytes(size, "big"))
        key, version, correlation = request[:2], int.from_bytes(request[2:4], "big"), request[4:8]
        if key == b"\0\x12":
            answer = ApiVersionResponse_v0(0, [(18, 0, 0), (3, 0, 1), (22, 0, 0), (10, 0, 0)])
        else:
            answer = MetadataResponse_v1([], -1, []) if version else MetadataResponse_v0([], [])
        body = correlation + answer.encode()
        writer.write(len(body).to_bytes(4, "big") + body)


@pytest.fixture
async def idle_broker():
    """The address of one that is out of service."""
    async with await asyncio.start_server(out_of_service, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_broker_that_is_not_in_service_is_waited_for_like_a_silent_one(idle_broker):
    """For a moment after an outage brokers answer without knowing of any broker, themselves included."""
    with pytest.raises(BrokerUnreachable, match="it answers but is not in service"):
        await probe(nowhere(idle_broker))
    with pytest.raises(BrokerUnreachable, match="it answers but is not in service"):
        await TransactionalSink(nowhere(idle_broker), "someone").start()


async def test_a_sink_without_a_broker_ends_in_one_line():
    """Also without a probe before it."""
    with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1:1"):
        await RecordSink(nowhere("127.0.0.1:1")).start()
