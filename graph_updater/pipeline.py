"""One interaction's way, top to bottom. READ FIRST.

    read      records from Kafka → the state                                        `Pipeline.read`, `engine`
    flush     changes since the last flush → a batch                                `Pipeline.flush`, `engine`
              leading: the batch → Kafka, part by part, with its offsets            `publication.publisher`
              standing by: the batch is kept until the leader has published it      `publication.outbox`
    snapshot  the state with its offsets → a file, once all of it is published      `snapshots`

Reading and flushing are two loops. Both use the engine's thread, which runs one call at a time, so a batch is always
the result of whole polls. While a batch is being published the next one gathers: its size grows with the load, and an
id that changed ten times meanwhile is published once. Changes that come in while a large batch is published join it.

Neither loop ends because the broker does not answer or refuses: both wait and try again, and the program is not ready
meanwhile.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from graph_updater.beginning import Carried
from graph_updater.engine import Capture, EngineThread, UpdaterEngine
from graph_updater.metrics import UpdaterMetrics
from graph_updater.publication.outbox import MAX_LETTER_BYTES
from graph_updater.publication.publisher import Publisher
from graph_updater.publication.standby import Leadership
from graph_updater.settings import UpdaterSection
from graph_updater.snapshots import Snapshots
from runtime.clock import Clock
from runtime.errors import BrokerError
from runtime.kafka import TopicFollower
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness

_POLL_MS: Final = 100
_STANDBY_INTERVAL_S: Final = 1.0
BACKLOG: Final = "backlog"
"""The readiness condition that holds once the records present at the start have been read."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Parts:
    """What the pipeline connects; made by `graph_updater.assembly`."""

    follower: TopicFollower
    engine: UpdaterEngine
    thread: EngineThread
    leadership: Leadership
    publisher: Publisher
    snapshots: Snapshots
    readiness: Readiness
    outages: Outages
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
        self._letter_bytes = 0
        """Bytes of the dead letters that the engine has and the publisher has not."""

    async def catch_up(self, stopping: asyncio.Event) -> None:
        """Reads everything that was there at the start, which may take long.

        It ends early if too many dead letters wait that no leader has sent: only a leader can, so this updater goes on
        to become one.
        """
        while not self._parts.follower.caught_up and not stopping.is_set():
            await self._read_once()
            if self._letter_bytes > MAX_LETTER_BYTES // 2 and not await self._letters_fit():
                log.warning("too many records were refused: publishing their dead letters before reading on")
                return

    async def read(self, stopping: asyncio.Event) -> None:
        """Reads records until asked to stop; pauses while too many dead letters wait for their publication."""
        follower, publisher = self._parts.follower, self._parts.publisher
        while not stopping.is_set():
            if follower.caught_up:
                self._parts.readiness.ready(BACKLOG)
            if publisher.letter_bytes + self._letter_bytes <= MAX_LETTER_BYTES:
                await self._read_once()
                continue
            follower.pause()
            await asyncio.sleep(_POLL_MS / 1000)
            follower.resume()

    async def flush_often(self, stopping: asyncio.Event) -> None:
        """Flushes at regular intervals until asked to stop: short ones while leading, long ones while standing by."""
        while not stopping.is_set():
            due = self._parts.clock.monotonic() + self._interval_s()
            if await self.flush():
                continue
            publisher, now = self._parts.publisher, self._parts.clock.monotonic()
            if publisher.is_leading and not publisher.pending:
                due = max(due, now + publisher.rate.wait_s())
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), max(0.0, due - now))

    async def flush(self) -> bool:
        """Collects the changes since the last flush; publishes a part of them, or keeps them while another leads.

        Returns:
            Whether to flush again at once: this part is published, and more waits.
        """
        parts = self._parts
        capture = await self._collect()
        try:
            is_published = await parts.publisher.flush()
        except BrokerError as error:
            parts.outages.note("publication", error)
            return False
        if is_published or parts.publisher.stands_by:
            parts.outages.over("publication")
        if is_published and not parts.publisher.pending:
            await self._save(capture)
        return is_published and parts.publisher.pending > 0

    async def finish(self, *, hands_over: bool = False) -> None:
        """After the last record: publishes everything and writes a snapshot.

        Args:
            hands_over: whether another run goes on: where many states wait, they are left to it.
        """
        parts = self._parts
        if parts.publisher.is_leading:
            while await self.flush() and not hands_over:
                pass
        await parts.snapshots.settled()
        if parts.publisher.is_leading and not parts.publisher.pending:
            await parts.snapshots.write_last(await parts.thread(parts.engine.capture))

    async def hand_over(self) -> Carried:
        """After `finish`: what a run with another bundle goes on with, also where this one has published nothing."""
        parts = self._parts
        await self._collect()
        capture = await parts.thread(parts.engine.capture)
        arrays, metadata = await parts.thread(capture.copy.merge)
        return Carried(arrays, metadata, capture.offsets, parts.publisher.outbox)

    async def _read_once(self) -> None:
        parts = self._parts
        records = await parts.follower.poll(max_records=self._settings.batch_records, timeout_ms=_POLL_MS)
        if not records:
            return
        with parts.metrics.absorbing.time():
            batch = await parts.thread(parts.engine.absorb, records)
        parts.metrics.interactions.inc(len(batch.interactions))
        parts.metrics.items.inc(len(batch.items))
        parts.metrics.parts_received.inc(len(batch.parts))
        for reject in batch.refused_parts:
            parts.metrics.parts_refused.inc()
            log.warning("what a shard told of an item is refused", record=str(reject.record), reason=reject.reason)
        for reject in batch.rejects:
            self._letter_bytes += len(reject.record.key or b"") + len(reject.record.value or b"")
            parts.metrics.dead_letters.labels(reject.record.topic).inc()
            log.warning("record refused", record=str(reject.record), reason=reject.reason)

    async def _letters_fit(self) -> bool:
        """Whether the dead letters that no leader has sent are few enough."""
        await self._collect()
        try:
            await self._parts.publisher.drop_published()
        except BrokerError as error:
            self._parts.outages.note("committed offsets", error)
        else:
            self._parts.outages.over("committed offsets")
        return self._parts.publisher.letter_bytes <= MAX_LETTER_BYTES

    async def _collect(self) -> Capture | None:
        """Hands the changes since the last call to the publisher; a capture if the copy for a snapshot is complete."""
        self._letter_bytes = 0  # before the call: what is read meanwhile may come with the next
        publisher, engine = self._parts.publisher, self._parts.engine
        term, all_published = publisher.begun_term, not publisher.pending
        collected = await self._parts.thread(partial(engine.collect, term, all_published=all_published))
        if collected.batch is not None:
            self._parts.publisher.add(collected.batch)
        return collected.capture

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
