"""One interaction's way, top to bottom. READ FIRST.

    read      records from Kafka → the state                                        `Pipeline.read`, `engine`
    flush     changes since the last flush → a batch                                `Pipeline.flush`, `engine`
              leading: the batch → Kafka, with its offsets                          `publication.publisher`
              standing by: the batch is kept until the leader has published it      `publication.outbox`
    snapshot  the state with its offsets → a file, once all of it is published      `recovery.Snapshots`

Reading and flushing are two loops. Both use the engine's thread, which runs one call at a time, so a batch is always
the result of whole polls. While a batch is being published the next one gathers: its size grows with the load, and an
id that changed ten times meanwhile is published once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from graph_updater.engine import Capture, EngineThread, UpdaterEngine
from graph_updater.metrics import UpdaterMetrics
from graph_updater.publication.publisher import Publisher
from graph_updater.publication.standby import Leadership
from graph_updater.recovery import Snapshots
from graph_updater.settings import UpdaterSection
from runtime.clock import Clock
from runtime.errors import BrokerUnreachable
from runtime.kafka import TopicFollower

_POLL_MS: Final = 100
_STANDBY_INTERVAL_S: Final = 1.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Parts:
    """What the pipeline connects; made by `graph_updater.updater`."""

    follower: TopicFollower
    engine: UpdaterEngine
    thread: EngineThread
    leadership: Leadership
    publisher: Publisher
    snapshots: Snapshots
    metrics: UpdaterMetrics
    clock: Clock


class Pipeline:
    """The running updater.

    Args:
        parts: what it connects.
        settings: batch sizes and intervals.
    """

    def __init__(self, parts: Parts, settings: UpdaterSection) -> None:
        self._parts = parts
        self._settings = settings

    async def catch_up(self, stopping: asyncio.Event) -> None:
        """Reads everything that was there at the start, which may take long."""
        while not self._parts.follower.caught_up and not stopping.is_set():
            await self._read_once()

    async def read(self, stopping: asyncio.Event) -> None:
        """Reads records until asked to stop."""
        while not stopping.is_set():
            await self._read_once()

    async def flush_often(self, stopping: asyncio.Event) -> None:
        """Flushes at regular intervals until asked to stop: short ones while leading, long ones while standing by."""
        while not stopping.is_set():
            due = self._parts.clock.monotonic() + self._interval_s()
            await self.flush()
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), max(0.0, due - self._parts.clock.monotonic()))

    async def flush(self) -> None:
        """Collects the changes since the last flush; publishes them, or keeps them while another updater leads."""
        parts = self._parts
        collected = await parts.thread(parts.engine.collect, full_republish=parts.publisher.needs_full_republish)
        if collected.batch is not None:
            parts.publisher.add(collected.batch)
        try:
            if await parts.publisher.flush():
                await self._save(collected.capture)
        except BrokerUnreachable as error:
            log.warning("the broker does not answer; batches wait", cause=str(error))

    async def finish(self) -> None:
        """After the last record: publishes everything and writes a snapshot."""
        parts = self._parts
        if parts.publisher.is_leading:
            await self.flush()
            await parts.snapshots.settled()
            if not parts.publisher.pending:
                await parts.snapshots.write(await parts.thread(parts.engine.capture))
        await parts.snapshots.settled()

    async def _read_once(self) -> None:
        parts = self._parts
        records = await parts.follower.poll(max_records=self._settings.batch_records, timeout_ms=_POLL_MS)
        if not records:
            return
        with parts.metrics.absorbing.time():
            batch = await parts.thread(parts.engine.absorb, records)
        parts.metrics.interactions.inc(len(batch.interactions))
        parts.metrics.items.inc(len(batch.items))
        for reject in batch.rejects:
            parts.metrics.dead_letters.labels(reject.record.topic).inc()
            log.warning("record refused", record=str(reject.record), reason=reject.reason)

    async def _save(self, capture: Capture | None) -> None:
        """Writes the snapshot captured with the batch just published, or starts copying one when it is due."""
        snapshots, engine = self._parts.snapshots, self._parts.engine
        if capture is not None:
            snapshots.write_beside(capture)
        elif snapshots.is_due(self._parts.publisher.published):
            await self._parts.thread(engine.begin_snapshot)

    def _interval_s(self) -> float:
        leading = self._parts.publisher.is_leading
        self._parts.metrics.leading.set(leading)
        self._parts.metrics.pending.set(self._parts.publisher.pending)
        return self._settings.flush_ms / 1000 if leading else _STANDBY_INTERVAL_S
