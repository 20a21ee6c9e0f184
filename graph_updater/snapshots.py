"""Writes the snapshots that `graph_updater.recovery` begins with.

A snapshot holds the state and its offsets. It is written only once all changes in it have been published, so that after
a recovery only later changes need to be published.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from graph_updater.engine import Capture
from graph_updater.metrics import UpdaterMetrics
from graph_updater.origin import Origin
from graph_updater.publication.batch import Offsets
from runtime.clock import Clock
from runtime.errors import SnapshotError
from runtime.process.daemon_thread import in_daemon_thread
from runtime.snapshots import SnapshotStore

FINISH_LIMIT_S: Final = 10.0
"""How long the end of the program waits for a snapshot: a disk or network that hangs must not keep it from ending."""
log = structlog.get_logger(__name__)


class Snapshots:
    """Writes snapshots at regular intervals, in the background.

    Args:
        store: where to.
        origin: part of every snapshot's metadata.
        interval_s: least time between two, written or failed.
        clock: for the interval.
        metrics: counts them.

    Attributes:
        origin: as given; may be replaced.
    """

    def __init__(
        self, store: SnapshotStore, origin: Origin, interval_s: float, clock: Clock, metrics: UpdaterMetrics
    ) -> None:
        self._store = store
        self.origin = origin
        self._interval_s = interval_s
        self._clock = clock
        self._metrics = metrics
        self._last = clock.monotonic()
        self._saved: Offsets = {}
        self._next: Capture | None = None
        self._asked = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failure = ""

    async def run(self) -> None:
        """Writes what `write_beside` is given, until cancelled; the owner of this task learns of every error."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            capture, self._next = self._next, None
            if capture is not None:
                await self.write(capture)
            self._idle.set()

    def is_due(self, published: Offsets) -> bool:
        """Whether to begin one: the interval has passed, none is being written, and there is something new."""
        waited_s = self._clock.monotonic() - self._last
        return self._idle.is_set() and waited_s >= self._interval_s and published != self._saved

    def write_beside(self, capture: Capture) -> None:
        """Has `run` write it."""
        self._next = capture
        self._last = self._clock.monotonic()
        self._idle.clear()
        self._asked.set()

    async def write(self, capture: Capture) -> bool:
        """Writes a snapshot in a thread. False if that failed, which is told and counted: the next one may succeed."""
        began = self._last = self._clock.monotonic()
        try:
            sequence = await in_daemon_thread(lambda: self._write_now(capture), "snapshot")
        except SnapshotError as error:
            self._metrics.snapshot_failures.inc()
            if str(error) != self._failure:
                log.warning("no snapshot was written, trying again", cause=str(error), again_in_s=self._interval_s)
            self._failure = str(error)
            return False
        took_s = self._clock.monotonic() - began
        self._saved, self._failure = capture.offsets, ""
        self._metrics.snapshots.inc()
        self._metrics.snapshot_seconds.observe(took_s)
        log.info("snapshot written", snapshot=sequence, address=self._store.address, took_s=round(took_s, 3))
        return True

    async def write_last(self, capture: Capture, limit_s: float = FINISH_LIMIT_S) -> None:
        """Writes a last snapshot; gives up after a while."""
        try:
            async with asyncio.timeout(limit_s):
                await self.write(capture)
        except TimeoutError:
            log.warning("no last snapshot was written", cause=f"it took more than {limit_s:g} s")

    async def settled(self, limit_s: float = FINISH_LIMIT_S) -> None:
        """Waits until no snapshot is being written; gives up after a while."""
        try:
            async with asyncio.timeout(limit_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning(
                "a snapshot is left unfinished", address=self._store.address, cause=f"not done in {limit_s:g} s"
            )

    def _write_now(self, capture: Capture) -> int:
        arrays, metadata = capture.copy.merge()
        offsets = [[topic, partition, offset] for (topic, partition), offset in capture.offsets.items()]
        said = {"state": metadata, "origin": self.origin.to_json(), "offsets": sorted(offsets)}
        return self._store.save_now(arrays, {**said, "saved_ms": self._clock.wall_ms()})
