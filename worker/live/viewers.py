"""Whoever looks at the live page: each gets the newest snapshot when it is ready for it, and waits for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

MOST_VIEWERS: Final = 16


class TooManyViewers(Exception):
    """All places are taken."""


class Viewers:
    """Hands one snapshot to any number of viewers up to a limit.

    A viewer that is slow skips snapshots: none is kept for it.

    Args:
        most: viewers at a time.
    """

    def __init__(self, most: int = MOST_VIEWERS) -> None:
        self._most = most
        self._count = 0
        self._snapshot = b""
        self._changed = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return self._count

    def publish(self, snapshot: bytes) -> None:
        """Makes this the newest snapshot."""
        self._snapshot = snapshot
        self._wake()

    def close(self) -> None:
        """Ends every viewer's iteration."""
        self._closed = True
        self._wake()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Takes a viewer's place until the end of the block.

        Raises:
            TooManyViewers: there is none left.
        """
        if self._count >= self._most:
            raise TooManyViewers(f"{self._most} viewers already look at this page")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    async def snapshots(self) -> AsyncIterator[bytes]:
        """The snapshots from the next one on, each the newest when it is asked for; ends with `close`."""
        while not self._closed:
            await self._changed.wait()
            if not self._closed:
                yield self._snapshot

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
