"""From the compacted topics into the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

import structlog

from programs.topics import TopicSettings
from runtime.clock import Clock
from runtime.kafka import TopicFollower
from runtime.observability.readiness import Readiness
from runtime.records import Record
from runtime.settings import KafkaSettings
from schemas.codec import MalformedRecord, MessageDecoder
from schemas.messages import Item, ItemState, UserState
from worker.compute import ComputeThread
from worker.metrics import WorkerMetrics
from worker.tables import Tables

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Applied:
    """What became of a batch of records."""

    taken: dict[str, int]
    """By topic, how many were taken over."""
    event_times_ms: list[int]
    """When the interactions happened that users' states told of for the first time: not those of a state that came
    again because its embedding moved."""
    refused: dict[str, int]
    """By topic, how many could not be used."""


class StateReader:
    """Knows which topic holds what.

    A record that cannot be used is logged and counted, and what was known before stays. It goes to no dead letters
    here: every worker reads these topics whole, at every start, and each would write its own.

    Args:
        topics: their names.
        max_bytes: longer records are refused.
    """

    def __init__(self, topics: TopicSettings, max_bytes: int) -> None:
        self.topics = (topics.items, topics.user_states, topics.item_states)
        self._kinds: dict[str, _Kind] = {
            topics.items: _Kind(MessageDecoder(Item, max_bytes), Tables.put_item, Tables.remove_item),
            topics.user_states: _Kind(
                MessageDecoder(UserState, max_bytes), Tables.put_user_state, Tables.remove_user, _news
            ),
            topics.item_states: _Kind(
                MessageDecoder(ItemState, max_bytes), Tables.put_item_state, Tables.remove_item_state
            ),
        }

    def apply(self, tables: Tables, records: Iterable[Record]) -> Applied:
        """Takes records over, in their order; tombstones forget. To be called by the tables' owner."""
        applied = Applied(dict.fromkeys(self.topics, 0), [], dict.fromkeys(self.topics, 0))
        for record in records:
            try:
                applied.event_times_ms += self._kinds[record.topic].apply(tables, record)
            except MalformedRecord as error:
                applied.refused[record.topic] += 1
                log.warning("state refused", place=str(record), reason=str(error))
            else:
                applied.taken[record.topic] += 1
        return applied


def _news(tables: Tables, state: UserState) -> list[int]:
    """Event times in a state's history that are newer than what was known of the user."""
    known_ms = tables.users.newest_event_ms(state.user_id)
    return [
        past.event_time_ms for past in takewhile(lambda past: past.event_time_ms > known_ms, reversed(state.recent))
    ]


def _no_news(_: Tables, __: Item | ItemState) -> list[int]:
    return []


@dataclass(frozen=True, slots=True)
class _Kind:
    decoder: MessageDecoder[Any]
    put: Callable[[Tables, Any], None]
    remove: Callable[[Tables, str], None]
    news: Callable[[Tables, Any], list[int]] = _no_news

    def apply(self, tables: Tables, record: Record) -> list[int]:
        """Takes one record over; the times of the events that it is the first to tell of.

        Raises:
            MalformedRecord: it cannot be used.
        """
        if record.value is None:
            self.remove(tables, _key(record))
            return []
        message = self.decoder.decode(record.value, record.headers)
        news = self.news(tables, message)
        self.put(tables, message)
        return news


def _key(record: Record) -> str:
    try:
        return (record.key or b"").decode()
    except UnicodeDecodeError as error:
        raise MalformedRecord(f"the key of a removal is not UTF-8: {error}") from error


async def read_tables(settings: KafkaSettings, reader: StateReader, tables: Tables) -> None:
    """Fills tables with all that the compacted topics hold now, for a program that answers once and ends.

    Raises:
        TopicMissing: one of the topics is not there.
        BrokerError: the broker cannot be asked.
    """
    follower = TopicFollower(settings, reader.topics, out_of_range="earliest")
    await follower.start()
    try:
        while not follower.caught_up:
            reader.apply(tables, await follower.poll())
    finally:
        await follower.stop()


class StateFeed:
    """Keeps tables filled from the compacted topics.

    Args:
        follower: reads them.
        reader: understands them.
        tables: are filled.
        thread: owns the tables.
        metrics: what is counted.
        batch: most records applied between two steps of the thread's main work.
    """

    def __init__(
        self,
        follower: TopicFollower,
        reader: StateReader,
        tables: Tables,
        thread: ComputeThread,
        metrics: WorkerMetrics,
        batch: int,
    ) -> None:
        self._follower = follower
        self._reader = reader
        self._tables = tables
        self._thread = thread
        self._metrics = metrics
        self._batch = batch
        self._is_filled = asyncio.Event()

    async def follow(self, clock: Clock, readiness: Readiness) -> None:
        """Up to where the topics ended at the start, then on for ever, noting how old events are when their effect can
        be served.
        """
        try:
            await self._fill(readiness)
            while True:
                for applied in await self._apply(await self._follower.poll()):
                    self._note_freshness(applied, clock.wall_ms())
        finally:
            await self._follower.stop()

    async def filled(self, stopping: asyncio.Event) -> None:
        """Returns once the tables are filled, or the program is to stop before they are."""
        waits = [asyncio.create_task(self._is_filled.wait()), asyncio.create_task(stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _fill(self, readiness: Readiness) -> None:
        while not self._follower.caught_up:
            done, total = self._follower.progress()
            readiness.wait_for("tables", f"{done} of {total} states read")
            await self._apply(await self._follower.poll())
        readiness.ready("tables")
        self._is_filled.set()
        log.info("tables filled", items=len(self._tables.items.ids), users=len(self._tables.users.ids))

    async def _apply(self, records: Sequence[Record]) -> list[Applied]:
        """Hands records to the tables' owner, a batch at a time: waiting for each keeps memory bounded."""
        outcomes = []
        for start in range(0, len(records), self._batch):
            batch = records[start : start + self._batch]
            applied = await self._thread.call(partial(self._reader.apply, self._tables, batch))
            for topic in self._reader.topics:
                self._metrics.states.labels(topic).inc(applied.taken[topic])
                self._metrics.refused_states.labels(topic).inc(applied.refused[topic])
            outcomes.append(applied)
        return outcomes

    def _note_freshness(self, applied: Applied, now_ms: int) -> None:
        for event_time_ms in applied.event_times_ms:
            self._metrics.freshness.observe(max(0.0, (now_ms - event_time_ms) / 1000))
