"""Which users the tables hold while partitions come and go, against the topic as plain lists."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, Future

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from table_model import DIM, READER, TOPICS, empty_tables, user_of
from tokenizers import Tokenizer, models

from models.text import Text
from runtime.clock import SystemClock
from runtime.kafka import partition_of
from runtime.observability.readiness import Readiness
from runtime.records import Record, TopicPartition
from schemas.codec import encode, headers_for
from schemas.messages import Embedding, PastInteraction
from worker import user_partitions
from worker.metrics import WorkerMetrics
from worker.outcomes.live import LiveOutcomes
from worker.outcomes.settings import OutcomeSettings
from worker.state_feed import StateFeed
from worker.state_store import tables as tables_module
from worker.state_store.settings import TableSettings
from worker.state_store.tables import Tables
from worker.user_partitions import HeldPartitions, UserPartitions

PARTITIONS = 3
_NAMES = [f"u{number}" for number in range(12)]
_SETS = st.frozensets(st.integers(0, PARTITIONS - 1))
_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("assign"), _SETS, _SETS),
        st.tuples(st.just("tell"), st.sampled_from(_NAMES)),
        st.tuples(st.just("silence")),
        st.tuples(st.just("turn")),
    ),
    max_size=40,
)


class Topic:
    """Users' states by partition; a follower of it that hands out one record of each partition at a time."""

    def __init__(self) -> None:
        self.logs: list[list[Record]] = [[] for _ in range(PARTITIONS)]
        self.positions: dict[int, int] = {}
        self.silences = 0
        self._ends: dict[int, int] = {}

    def tell(self, name: str) -> None:
        """Appends a user's state."""
        partition = partition_of(name.encode(), PARTITIONS)
        log = self.logs[partition]
        state = encode(user_of(name))
        log.append(Record(TOPICS.user_states, partition, len(log), name.encode(), state, tuple(headers_for("msgpack"))))

    def names(self, partition: int) -> set[str]:
        """The users of a partition, as far as it has been handed out."""
        return {record.key.decode() for record in self.logs[partition][: self.positions[partition]]}

    @property
    def caught_up(self) -> bool:
        """Nothing else is followed here."""
        return True

    def progress(self) -> tuple[int, int]:
        """Nobody looks."""
        return 0, 0

    async def choose(self, topic: str, numbers) -> bool:
        """As a follower does; fails as often as the broker is silent."""
        assert topic == TOPICS.user_states
        if self.silences:
            self.silences -= 1
            return False
        self.positions = {number: self.positions.get(number, 0) for number in numbers}
        self._ends = {number: self._ends.get(number, len(self.logs[number])) for number in numbers}
        return True

    def is_behind(self, partition: TopicPartition) -> bool:
        """Whether records are unread that were there when the partition came."""
        return self.positions[partition.partition] < self._ends[partition.partition]

    def count(self, topic: str) -> int:
        """No partition is added."""
        assert topic == TOPICS.user_states
        return PARTITIONS

    async def poll(self, timeout_ms: int) -> list[Record]:
        """The next record of each partition."""
        assert timeout_ms > 0
        records = []
        for number, position in self.positions.items():
            portion = self.logs[number][position : position + 1]
            self.positions[number] += len(portion)
            records += portion
        return records


class _InPlace:
    """The compute thread's part, done at once."""

    async def call(self, function):
        return function()


def _check(tables, topic, held, feed):
    rows = range(tables.users.ids.high_water)
    in_tables = {number: set() for number in range(PARTITIONS)}
    for row in rows:
        if name := tables.users.ids.id_of(row):
            in_tables[int(tables.users.partitions[row])].add(name)
    for number in range(PARTITIONS):
        if number in topic.positions:
            assert in_tables[number] == topic.names(number)
        elif number not in held._leaving:
            assert not in_tables[number]
        if number in held.read:
            assert topic.positions[number] >= topic._ends[number]
    followed = {TopicPartition(TOPICS.user_states, number): position for number, position in topic.positions.items()}
    assert feed.applied == {partition: position for partition, position in followed.items() if position}


_ALL, _NONE = frozenset(range(PARTITIONS)), frozenset()
_TURN = ("turn",)
_BACK_AT_ONCE = [("assign", _ALL, _NONE), *[_TURN] * 6, ("assign", _NONE, _NONE), _TURN, ("assign", _ALL, _NONE)]


@settings(max_examples=200, deadline=None)
@example(_NAMES, _BACK_AT_ONCE)
@given(st.lists(st.sampled_from(_NAMES), max_size=12), _EVENTS)
def test_tables_hold_the_users_of_the_partitions_that_are_wanted(at_first, events):
    """Whatever comes and goes in which order, back before the last user has left, or while the broker is silent."""

    async def play():
        topic, tables, partitions = Topic(), empty_tables(), UserPartitions(PARTITIONS)
        for name in at_first:
            topic.tell(name)
        thread, metrics, clock = _InPlace(), WorkerMetrics(), SystemClock()
        held = HeldPartitions(partitions, TOPICS.user_states, topic, tables, thread, frozenset())
        outcomes = LiveOutcomes(OutcomeSettings(), metrics, clock)
        feed = StateFeed(topic, READER, tables, thread, metrics, outcomes, 2, held)
        partitions.serve(held)
        await feed._fill(Readiness())
        for event, *told in events:
            if event == "assign":
                partitions.assign(*told)
            elif event == "tell":
                topic.tell(*told)
            elif event == "silence":
                topic.silences += 1
            else:
                await feed._take_next(10)
                _check(tables, topic, held, feed)
        for _ in range(60):
            await feed._take_next(10)
            _check(tables, topic, held, feed)
        assert partitions.read == (partitions.wanted or frozenset())
        assert topic.positions.keys() == partitions.read
        assert not held.is_leaving
        assert partitions.awaited == frozenset()
        assert not partitions.standby & (partitions.assigned or frozenset())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tables_module, "_REMOVED_AT_ONCE", 1)
        patched.setattr(user_partitions, "_REMOVALS", 1)
        patched.setattr(user_partitions, "_RETRY_S", 0.0)
        asyncio.run(play())


class _Untrained(Executor):
    """Trains nothing, or fails at once."""

    def __init__(self, error=None):
        self._error = error

    def submit(self, *_, **__):
        if self._error is not None:
            raise self._error
        return Future()


def _held(topic, tables=None):
    partitions = UserPartitions(PARTITIONS)
    held = HeldPartitions(partitions, TOPICS.user_states, topic, tables or empty_tables(), _InPlace(), frozenset())
    partitions.serve(held)
    return partitions, held


async def test_own_partitions_are_read_before_standbys():
    """Requests wait for these."""
    topic = Topic()
    for name in _NAMES:
        topic.tell(name)
    partitions, held = _held(topic)
    partitions.assign(frozenset({1}), frozenset({0, 2}))

    await held.adjust()
    assert topic.positions.keys() == {1}
    while topic.is_behind(TopicPartition(TOPICS.user_states, 1)):
        await topic.poll(1)
        await held.note_read()
        await held.adjust()
    await held.adjust()
    assert topic.positions.keys() == {0, 1, 2}


@pytest.mark.parametrize(("error", "read"), [(None, set()), (MemoryError("no memory"), {0, 1, 2})])
async def test_a_partition_is_read_once_its_users_are_searched_quickly(error, read):
    """Where training fails there is nothing to wait for."""
    topic = Topic()
    limits = TableSettings(exact_search_limit=3)
    tables = Tables(Text(Tokenizer(models.BPE())), DIM, limits, _Untrained(error))
    partitions, held = _held(topic, tables)
    partitions.assign(frozenset(range(PARTITIONS)), frozenset())
    await held.adjust()
    embedding = Embedding(data=b"<" * 2 * DIM, dtype="float16", dim=DIM, version=1)
    for name in _NAMES:
        past = PastInteraction(item_id="i", event_time_ms=0, positive=True, event_id="e")
        tables.put_user_state(msgspec.structs.replace(user_of(name, past), embedding=embedding))
    await held.note_read()

    assert held.read == read
