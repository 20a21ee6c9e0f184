"""One interaction's way, top to bottom. READ FIRST.

    read      records in from Kafka → into the state                            `Pipeline.read`, `Engine.absorb`
    flush     what moved since the last time → a parcel                          `Pipeline.flush`, `Engine.collect`
              leading: the parcel → Kafka, with the offsets it stands for        `Pipeline._publish`, `publishing`
              standing by: the parcel is kept until the leader has published it  `Pipeline._stand_by`, `outbox`
    snapshot  the state with its offsets → a file, once all of it is published   `recovery.Snapshots`

Reading and flushing are two loops that meet in the compute thread, which does one thing at a time: a parcel is always
the outcome of whole micro-batches. While a parcel is on its way the next one gathers, so its size grows with the load,
and an id that moved ten times meanwhile is published once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from graph_updater.compute import ComputeThread
from graph_updater.engine import Capture, Engine
from graph_updater.metrics import UpdaterMetrics
from graph_updater.outbox import Committed, Frontier, Outbox, Parcel
from graph_updater.publishing import MOST_AT_ONCE, transact
from graph_updater.recovery import Snapshots
from graph_updater.settings import UpdaterSection
from graph_updater.standby import Leadership, Reign
from runtime.clock import Clock
from runtime.errors import BrokerUnreachable, TransactionFailed
from runtime.kafka import TopicFollower

_STANDBY_INTERVAL_S: Final = 1.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Parts:
    """What the pipeline connects; made by `graph_updater.app`."""

    follower: TopicFollower
    engine: Engine
    compute: ComputeThread
    leadership: Leadership
    outbox: Outbox
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
        self._reign: Reign | None = None
        self._published: Frontier = {}

    async def catch_up(self, stopping: asyncio.Event) -> None:
        """Reads everything that was there at the start. Nobody need wait for it: it may take long."""
        while not self._parts.follower.caught_up and not stopping.is_set():
            await self._read_once()

    async def read(self, stopping: asyncio.Event) -> None:
        """Takes records in until asked to stop."""
        while not stopping.is_set():
            await self._read_once()

    async def flush_often(self, stopping: asyncio.Event) -> None:
        """Flushes on a clock until asked to stop: often while leading, seldom while standing by."""
        while not stopping.is_set():
            due = self._parts.clock.monotonic() + self._interval_s()
            await self.flush()
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), max(0.0, due - self._parts.clock.monotonic()))

    async def flush(self) -> None:
        """Collects what moved since the last flush; publishes it, or keeps it for the day when this one leads."""
        parts, reign = self._parts, self._parts.leadership.reign
        everything = reign is not None and parts.outbox.everything
        collected = await parts.compute(parts.engine.collect, everything=everything)
        if collected.parcel is not None:
            parts.outbox.add(collected.parcel)
        try:
            if reign is None:
                await self._stand_by()
            elif await self._publish(reign):
                await self._keep(collected.capture)
        except BrokerUnreachable as error:
            log.warning("the broker does not answer; what is to be published waits", cause=str(error))

    async def finish(self) -> None:
        """What remains to be done after the last record: publish all, write a snapshot."""
        parts = self._parts
        if parts.leadership.reign is not None:
            await self.flush()
            await parts.snapshots.settled()
            if not len(parts.outbox):
                await parts.snapshots.write(await parts.compute(parts.engine.capture))
        await parts.snapshots.settled()

    async def _read_once(self) -> None:
        parts = self._parts
        records = await parts.follower.poll(max_records=self._settings.batch_records, timeout_ms=100)
        if not records:
            return
        with parts.metrics.absorbing.time():
            batch = await parts.compute(parts.engine.absorb, records)
        parts.metrics.interactions.inc(len(batch.interactions))
        parts.metrics.items.inc(len(batch.items))
        for reject in batch.rejects:
            parts.metrics.dead_letters.labels(reject.record.topic).inc()
            log.warning("record refused", record=str(reject.record), reason=reject.reason)

    async def _publish(self, reign: Reign) -> bool:
        """Publishes the outbox; False if that failed, and another one leads or this one has to begin anew."""
        if reign is not self._reign:
            await self._begin(reign)
        parts, parcel = self._parts, self._parts.outbox.contents()
        if parcel is None:
            return True
        try:
            with parts.metrics.publishing.time():
                for part in parcel.split(MOST_AT_ONCE):
                    records = await parts.compute(parts.engine.encode, part)
                    await transact(reign, self._settings.group_id, records, part.frontier)
        except TransactionFailed as error:
            log.warning("a parcel was not published", cause=str(error))
            reign.over = True
            return False
        parts.outbox.published(parcel)
        self._published = parcel.frontier
        self._count(parcel)
        return True

    async def _begin(self, reign: Reign) -> None:
        """Looks how far the leader before came (this one itself, where a transaction's outcome was in doubt)."""
        self._parts.outbox.drop_covered(await self._committed())
        self._reign = reign

    async def _keep(self, capture: Capture | None) -> None:
        """Writes the snapshot that was captured with the parcel just published; or begins one, if it is time."""
        snapshots, engine = self._parts.snapshots, self._parts.engine
        if capture is not None:
            snapshots.write_beside(capture)
        elif snapshots.is_due(self._published):
            await self._parts.compute(engine.begin_snapshot)

    async def _stand_by(self) -> None:
        """Drops what the leader has published meanwhile."""
        self._parts.outbox.watch_leader(await self._committed())

    async def _committed(self) -> Committed:
        """Per input partition, the offset up to which leaders have published everything."""
        follower = self._parts.follower
        return await follower.committed(follower.assignment())

    def _count(self, parcel: Parcel) -> None:
        metrics = self._parts.metrics
        metrics.published.labels("user").inc(len(parcel.users))
        metrics.published.labels("item").inc(len(parcel.items))
        metrics.observe_freshness(parcel.event_times_ms, self._parts.clock.wall_ms())

    def _interval_s(self) -> float:
        leading = self._parts.leadership.reign is not None
        self._parts.metrics.leading.set(leading)
        self._parts.metrics.waiting.set(len(self._parts.outbox))
        return self._settings.flush_ms / 1000 if leading else _STANDBY_INTERVAL_S
