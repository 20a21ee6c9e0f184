"""A TCP proxy whose line can be cut: a network between programs and a broker that fails when told to."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Final, Self

from loadgen.processes import free_port

_CHUNK: Final = 65_536


class TcpProxy:
    """Forwards connections from a loopback port of its own. While the line is cut nothing is forwarded in either
    direction and no connection is closed, as where packets are lost on the way; once it is mended everything arrives.

    It runs in a thread with its own event loop, so a busy caller does not slow it down.

    Args:
        target_port: where to forward to, on loopback.
        port: where to listen; None takes a free one.

    Attributes:
        port: where it listens.
        target_port: where it forwards to.
    """

    def __init__(self, target_port: int, port: int | None = None) -> None:
        self.port = port or free_port()
        self.target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._whole = asyncio.Event()
        self._whole.set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def stop(self) -> None:
        """Close every connection and stop listening."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Forward nothing from now on."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def mend(self) -> None:
        """Forward again, beginning with what was held back."""
        self._loop.call_soon_threadsafe(self._whole.set)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.CancelledError):  # asyncio would log it
            await self._whole.wait()
            try:
                there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
            except OSError:
                return  # the broker is down: its clients see their connection closed
            with contextlib.closing(back):
                await self._forward((reader, back), (there, writer))

    async def _forward(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        """Copy in both directions until one of them ends."""
        copying = [asyncio.ensure_future(self._copy(source, target)) for source, target in ways]
        try:
            await asyncio.wait(copying, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in copying:
                task.cancel()
            await asyncio.gather(*copying, return_exceptions=True)

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await source.read(_CHUNK):
                await self._whole.wait()
                target.write(chunk)
                await target.drain()
