"""Records of the compacted topics, applied to the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from programs.topics import TopicSettings
from runtime.kafka import TopicFollower
from runtime.records import Record
from runtime.settings import KafkaSettings
from schemas.codec import MalformedRecord, MessageDecoder, check_key
from schemas.messages import Item, ItemState, UserState
from schemas.packed_states import ITEM_MAGIC, PACKED_HEADERS, USER_MAGIC, StateDecoder, pack_state
from worker.state_store.packed_batch import PackedBatch
from worker.state_store.tables import StoredStates, Tables

log = structlog.get_logger(__name__)


UserHistory = tuple[bytes, bytes]
"""A user's id and packed state: what became of scores is looked up in it, and only for users with scores."""


@dataclass(slots=True)
class Applied:
    """What became of a batch of records."""

    taken: dict[str, int]
    """Records applied, by topic; those that a later one of the batch replaces among them."""
    news_ms: list[NDArray[np.int64]]
    """Event times of interactions that were not known before. A state that is published again because its embedding
    moved brings none."""
    refused: dict[str, int]
    """Records that could not be used, by topic."""
    users: list[UserHistory]
    """The users' states among those applied."""

    @property
    def event_times_ms(self) -> list[int]:
        """`news_ms` one by one."""
        return [time_ms for times in self.news_ms for time_ms in times.tolist()]


class StateReader:
    """Decodes states and applies them.

    A record that cannot be used is logged and counted, and the previous state stays. It is not dead-lettered: every
    worker reads these topics from the beginning at every start, and each would write its own letter.

    Args:
        topics: their names.
        max_bytes: longer records are refused.
    """

    def __init__(self, topics: TopicSettings, max_bytes: int) -> None:
        self.topics = (topics.items, topics.user_states, topics.item_states)
        self.users_topic = topics.user_states
        self._items_topic = topics.items
        self._items = MessageDecoder(Item, max_bytes)
        self._kinds: dict[str, _Kind] = {
            topics.user_states: _Kind(
                USER_MAGIC, StateDecoder(UserState, max_bytes), max_bytes, _put_users, Tables.remove_user
            ),
            topics.item_states: _Kind(
                ITEM_MAGIC,
                StateDecoder(ItemState, max_bytes),
                max_bytes,
                _put_items,
                Tables.remove_item_state,
            ),
        }

    def apply(self, tables: Tables, records: Iterable[Record]) -> Applied:
        """Applies records, of each key the latest that can be used; a tombstone removes its id. To be called by the
        tables' owner.
        """
        applied = Applied(dict.fromkeys(self.topics, 0), [], dict.fromkeys(self.topics, 0), [])
        states: dict[str, list[Record]] = {topic: [] for topic in self._kinds}
        for record in records:
            if record.topic == self._items_topic:
                self._apply_item(tables, record, applied)
            else:
                states[record.topic].append(record)
        for topic, of_topic in states.items():
            self._apply_states(tables, self._kinds[topic], of_topic, applied)
        return applied

    def _apply_item(self, tables: Tables, record: Record, applied: Applied) -> None:
        try:
            if record.value is None:
                tables.remove_item(_removed(record))
            else:
                item = self._items.decode(record.value, record.headers)
                check_key(record.key, item.item_id, "item id")
                tables.put_item(item)
        except MalformedRecord as error:
            _refuse(record, str(error), applied)
        else:
            applied.taken[record.topic] += 1

    def _apply_states(self, tables: Tables, kind: _Kind, records: Sequence[Record], applied: Applied) -> None:
        """Of several records of one key the last is applied; where that is refused, the one before."""
        while records:
            latest: dict[bytes | None, Record] = {record.key: record for record in records}
            refused = kind.apply(tables, list(latest.values()), applied)
            earlier = [one for one in records if one.key in refused and one is not latest[one.key]] if refused else []
            applied.taken[records[0].topic] += len(records) - len(refused) - len(earlier)
            records = earlier


@dataclass(frozen=True, slots=True)
class _Kind:
    magic: bytes
    decoder: StateDecoder[Any]
    max_bytes: int
    put: Callable[[Tables, PackedBatch, Sequence[Record]], StoredStates]
    remove: Callable[[Tables, str], None]

    def apply(self, tables: Tables, records: Sequence[Record], applied: Applied) -> set[bytes | None]:
        """Applies records of distinct keys. Returns the keys of those that were refused."""
        refused: set[bytes | None] = set()
        packed: list[bytes] = []
        given: list[Record] = []
        for record in records:
            try:
                if record.value is None:
                    self.remove(tables, _removed(record))
                else:
                    packed.append(self._packed(record, record.value))
                    given.append(record)
            except MalformedRecord as error:
                _refuse(record, str(error), applied)
                refused.add(record.key)
        if given:
            self._store(tables, given, packed, applied, refused)
        return refused

    def _packed(self, record: Record, value: bytes) -> bytes:
        """The record's value, packed if it is not."""
        if record.headers == PACKED_HEADERS and len(value) <= self.max_bytes:
            return value
        state = self.decoder.decode(value, record.headers)
        return pack_state(state)

    def _store(
        self,
        tables: Tables,
        records: Sequence[Record],
        packed: Sequence[bytes],
        applied: Applied,
        refused: set[bytes | None],
    ) -> None:
        stored = self.put(tables, PackedBatch(packed, self.magic), records)
        applied.news_ms.append(stored.news_ms)
        if self.magic == USER_MAGIC:
            applied.users += ((records[at].key or b"", packed[at]) for at in stored.records.tolist())
        if len(stored.records) == len(records):
            return
        for at in sorted(set(range(len(records))) - set(stored.records.tolist())):
            _refuse(records[at], self._reason(tables, records[at], packed[at]), applied)
            refused.add(records[at].key)

    def _reason(self, tables: Tables, record: Record, packed: bytes) -> str:
        """Why a packed state cannot be used, found by the reference that reads one at a time."""
        try:
            state = self.decoder.decode(packed, PACKED_HEADERS)
            name = state.user_id if isinstance(state, UserState) else state.item_id
            check_key(record.key, name, "user id" if isinstance(state, UserState) else "item id")
            tables.check(state.embedding)
        except MalformedRecord as error:
            return str(error)
        return "it cannot be stored"


def _put_users(tables: Tables, states: PackedBatch, records: Sequence[Record]) -> StoredStates:
    return tables.put_user_states(states, _keys(records), [record.partition for record in records])


def _put_items(tables: Tables, states: PackedBatch, records: Sequence[Record]) -> StoredStates:
    return tables.put_item_states(states, _keys(records))


def _keys(records: Sequence[Record]) -> list[bytes]:
    return [record.key or b"" for record in records]


def _removed(record: Record) -> str:
    """The id that a tombstone removes."""
    if not record.key:
        raise MalformedRecord("a removal without a key, which names what is removed")
    try:
        return record.key.decode()
    except UnicodeDecodeError as error:
        raise MalformedRecord(f"the key of a removal is not UTF-8: {error}") from error


def _refuse(record: Record, reason: str, applied: Applied) -> None:
    applied.refused[record.topic] += 1
    log.warning("state refused", place=str(record), reason=reason)


async def read_tables(settings: KafkaSettings, reader: StateReader, tables: Tables) -> None:
    """Fills tables with what the compacted topics hold now, for a program that answers once and ends.

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
