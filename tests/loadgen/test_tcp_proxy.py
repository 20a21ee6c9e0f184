"""A line that can be cut: nothing gets through meanwhile, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from loadgen.tcp_proxy import TcpProxy

QUIET_S = 0.3


@pytest.fixture
async def echo():
    """A server that sends back what it is sent; yields its port."""

    async def serve(reader, writer):
        with contextlib.closing(writer):
            while chunk := await reader.read(1_000):
                writer.write(chunk)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
def proxy(echo):
    """A proxy before it."""
    with TcpProxy(echo) as proxy:
        yield proxy


@pytest.fixture
async def line(proxy):
    """An open connection through it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    yield reader, writer
    writer.close()


async def test_bytes_pass_in_both_directions(line):
    """What is sent comes back."""
    reader, writer = line
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"


async def test_a_cut_line_holds_everything_back_until_it_is_mended(proxy, line):
    """The connection stays open, nothing arrives, and then all of it does, in order."""
    reader, writer = line
    writer.write(b"before")
    await reader.readexactly(6)
    proxy.cut()
    await asyncio.sleep(0.1)
    writer.write(b"during")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), QUIET_S)
    proxy.mend()
    writer.write(b"after")
    assert await reader.readexactly(11) == b"duringafter"


async def test_a_new_connection_waits_for_the_line(proxy):
    """Connecting succeeds while it is cut, as through a network that drops packets; answers come when it is mended."""
    proxy.cut()
    await asyncio.sleep(0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"hello")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), QUIET_S)
    proxy.mend()
    assert await reader.readexactly(5) == b"hello"
    writer.close()


async def test_without_a_target_connections_are_closed():
    """Nobody listens behind it: the client is told at once."""
    with TcpProxy(1) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await reader.read() == b""
        writer.close()
