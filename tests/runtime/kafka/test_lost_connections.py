"""Connections that end while they are written to, on the event loop that the programs use."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import NodeNotReadyError
from aiokafka.protocol.admin import ApiVersionResponse_v0
from aiokafka.protocol.metadata import MetadataRequest

import runtime.kafka  # noqa: F401 - whoever connects has it imported, and is to need no more
from runtime.kafka.lost_connections import lose_closed_connections


async def say_versions(reader, writer):
    """A broker that says which requests it knows, and nothing more."""
    request = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
    body = request[4:8] + ApiVersionResponse_v0(0, [(18, 0, 0), (3, 0, 1)]).encode()
    writer.write(len(body).to_bytes(4, "big") + body)
    await reader.read()
    writer.close()


async def write_to_a_connection_that_has_ended(write):
    """What is raised in the moment between its end and aiokafka's learning of it; the connection."""
    async with await asyncio.start_server(say_versions, "127.0.0.1", 0) as server:
        connection = await create_conn(*server.sockets[0].getsockname())
        transport = connection._writer.transport
        transport.abort()
        await asyncio.sleep(0)
        assert "closed=True" in repr(transport)
        assert connection._writer is not None
        with pytest.raises(NodeNotReadyError, match="the handler is closed") as raised:
            await write(connection)
        return raised.value, connection


async def send_a_request(connection):
    """As every client does."""
    await connection.send(MetadataRequest([]))


async def send_a_token(connection):
    """As logging in does."""
    await connection._send_sasl_token(b"token")


@pytest.mark.parametrize("write", [send_a_request, send_a_token])
def test_writing_to_an_ended_connection_is_a_lost_connection(write):
    """Not a fault of the program: clients connect anew."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        error, connection = runner.run(write_to_a_connection_that_has_ended(write))
    assert error.retriable
    assert not connection.connected()
    assert connection._writer is None


@pytest.mark.parametrize("fault", [NotImplementedError("no such version"), RuntimeError("a mistake")])
async def test_a_fault_stays_one(fault):
    """Of a connection that is open: to try again would hide it for ever."""

    class Faulty(MetadataRequest):
        def prepare(self, _versions):
            raise fault

    async with await asyncio.start_server(say_versions, "127.0.0.1", 0) as server:
        connection = await create_conn(*server.sockets[0].getsockname())
        with pytest.raises(type(fault), match=str(fault)):
            await connection.send(Faulty([]))
        assert connection.connected()
        connection.close()


def test_mending_again_changes_nothing():
    """However many clients are made."""
    before = AIOKafkaConnection.send
    lose_closed_connections()
    assert AIOKafkaConnection.send is before
