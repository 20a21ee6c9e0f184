"""Keeps the tables filled from the compacted topics while the worker runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog

from runtime.clock import Clock
from runtime.kafka import TopicFollower
from runtime.observability.readiness import Readiness
from runtime.records import Record, TopicPartition
from worker.compute import ComputeThread
from worker.metrics import WorkerMetrics
from worker.outcomes.live import LiveOutcomes
from worker.saved_tables import Reached
from worker.state_store.state_reader import Applied, StateReader
from worker.state_store.tables import Tables
from worker.user_partitions import HeldPartitions

AWAITED_AT_MOST: Final = 0.05
"""Share of embeddings that may be of another space when a worker begins: of ids that no updater knows any more."""
_POLL_MS: Final = 100
_LEAVING_POLL_MS: Final = 1
"""While users leave, some after each poll."""
log = structlog.get_logger(__name__)


class StateFeed:
    """Keeps tables filled from the compacted topics.

    Args:
        follower: reads them.
        reader: applies them.
        tables: where to.
        thread: owns the tables.
        metrics: what is counted.
        outcomes: learns from users' histories what became of scores.
        batch: most records applied between two steps of the thread's main work.
        held: decides which partitions of users are followed; None: all of them.

    Attributes:
        applied: next offset per partition; all records before it have been applied.
    """

    least_fill_batch = 1_000
    """Records applied at once while nothing is served yet: large batches take less time a record."""

    def __init__(
        self,
        follower: TopicFollower,
        reader: StateReader,
        tables: Tables,
        thread: ComputeThread,
        metrics: WorkerMetrics,
        outcomes: LiveOutcomes,
        batch: int,
        held: HeldPartitions | None = None,
    ) -> None:
        self.applied: dict[TopicPartition, int] = {}
        self._follower = follower
        self._reader = reader
        self._tables = tables
        self._thread = thread
        self._metrics = metrics
        self._outcomes = outcomes
        self._batch = batch
        self._held = held
        self._fill_batch = max(batch, self.least_fill_batch)
        self._is_filled = asyncio.Event()
        self._tells_freshness = True  # not while states are read that were written long ago

    async def follow(self, clock: Clock, readiness: Readiness) -> None:
        """Fills the tables, then keeps them current until cancelled and measures the freshness of events."""
        try:
            await self._fill(readiness)
            while True:
                done = await self._take_next(self._present_batch())
                if self._tells_freshness:
                    for applied in done:
                        self._note_freshness(applied, clock.wall_ms())
        finally:
            await self._follower.stop()

    def reached(self) -> Reached:
        """How far the tables are."""
        return Reached(dict(self.applied), 0 if self._held is None else self._held.given_up)

    async def filled(self) -> None:
        """Returns once the tables are filled."""
        await self._is_filled.wait()

    async def _fill(self, readiness: Readiness) -> None:
        log.info("reading the states", to_read=self._follower.progress()[1])
        while not self._follower.caught_up:
            done, total = self._follower.progress()
            readiness.wait_for("tables", f"{done} of {total} states read")
            await self._take_next(self._fill_batch)
        await self._await_embeddings(readiness)
        await self._await_search(readiness)
        if self._held is not None:
            await self._held.note_read()  # from a copy there may have been nothing to read
        readiness.ready("tables")
        self._is_filled.set()
        log.info("tables filled", items=len(self._tables.items.ids), users=len(self._tables.users.ids))

    async def _await_embeddings(self, readiness: Readiness) -> None:
        """Waits for an updater that has not changed to this bundle yet: without embeddings scores would be poor."""
        is_told = False
        while (awaited := self._tables.embeddings_awaited()) > AWAITED_AT_MOST:
            said = f"{awaited:.0%} of the embeddings are of another bundle: waiting for the updater to run this one"
            readiness.wait_for("tables", said)
            if not is_told:
                log.warning("waiting for embeddings of this bundle", awaited=round(awaited, 3))
                is_told = True
            await self._take_next(self._fill_batch)

    async def _await_search(self, readiness: Readiness) -> None:
        """Waits for the search indexes to be trained: until then a search compares with every entry."""
        while (awaited := await self._thread.call(self._tables.search_awaited)) is not None:
            readiness.wait_for("tables", awaited)
            await self._take_next(self._fill_batch)

    async def _take_next(self, size: int) -> list[Applied]:
        """Applies what there is to be read, of the partitions that are to be held."""
        if self._held is None:
            return await self._apply(await self._follower.poll(), size)
        for partition in await self._held.adjust():
            self.applied.pop(partition, None)
        self._tells_freshness = not self._held.is_reading
        records = await self._follower.poll(timeout_ms=_LEAVING_POLL_MS if self._held.is_leaving else _POLL_MS)
        done = await self._apply(records, size)
        await self._held.note_read()
        return done

    def _is_reading(self) -> bool:
        return self._held is not None and self._held.is_reading

    def _present_batch(self) -> int:
        """Small ones do not keep requests waiting, of which there are none to speak of before any user is known."""
        return self._fill_batch if self._held is not None and not self._held.read else self._batch

    async def _apply(self, records: Sequence[Record], size: int) -> list[Applied]:
        """Applies records in the compute thread, `size` at a time; waiting for each batch keeps memory bounded."""
        done = []
        for start in range(0, len(records), size):
            batch = records[start : start + size]
            applied = await self._thread.call(partial(self._take, batch))
            for topic in self._reader.topics:
                self._metrics.states.labels(topic).inc(applied.taken[topic])
                self._metrics.refused_states.labels(topic).inc(applied.refused[topic])
            self._outcomes.learn(applied.users)
            self.applied.update((record.source, record.offset + 1) for record in batch)
            done.append(applied)
        return done

    def _take(self, batch: Sequence[Record]) -> Applied:
        """In the compute thread."""
        applied = self._reader.apply(self._tables, batch)
        if self._is_reading():
            self._tables.refresh_indexes()  # a little each time; the next search would have to do it all
        return applied

    def _note_freshness(self, applied: Applied, now_ms: int) -> None:
        for event_time_ms in applied.event_times_ms:
            self._metrics.freshness.observe(max(0.0, (now_ms - event_time_ms) / 1000))


class FeedBeside(StateFeed):
    """Fills tables while a model serves from others. The search indexes follow each batch: all at once, at the end,
    they would keep requests waiting.
    """

    least_fill_batch = 1

    def _take(self, batch: Sequence[Record]) -> Applied:
        applied = super()._take(batch)
        self._tables.refresh_indexes()
        return applied
