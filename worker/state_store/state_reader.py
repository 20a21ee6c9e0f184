"""Records of the compacted topics, applied to the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import structlog

from programs.topics import TopicSettings
from runtime.kafka import TopicFollower
from runtime.records import Record
from runtime.settings import KafkaSettings
from schemas.codec import MalformedRecord, MessageDecoder, check_key
from schemas.messages import Item, ItemState, UserState
from worker.state_store.tables import Tables

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Applied:
    """What became of a batch of records."""

    taken: dict[str, int]
    """Records applied, by topic."""
    event_times_ms: list[int]
    """Event times of interactions that were not known before. A state that is published again because its embedding
    moved brings none."""
    refused: dict[str, int]
    """Records that could not be used, by topic."""
    users: list[UserState]
    """The users' states among those applied."""


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
        self._kinds: dict[str, _Kind] = {
            topics.items: _Kind("item_id", MessageDecoder(Item, max_bytes), Tables.put_item, Tables.remove_item),
            topics.user_states: _Kind(
                "user_id", MessageDecoder(UserState, max_bytes), Tables.put_user_state, Tables.remove_user, _news
            ),
            topics.item_states: _Kind(
                "item_id", MessageDecoder(ItemState, max_bytes), Tables.put_item_state, Tables.remove_item_state
            ),
        }

    def apply(self, tables: Tables, records: Iterable[Record]) -> Applied:
        """Applies records in their order; a tombstone removes its id. To be called by the tables' owner."""
        applied = Applied(dict.fromkeys(self.topics, 0), [], dict.fromkeys(self.topics, 0), [])
        for record in records:
            try:
                self._kinds[record.topic].apply(tables, record, applied)
            except MalformedRecord as error:
                applied.refused[record.topic] += 1
                log.warning("state refused", place=str(record), reason=str(error))
            else:
                applied.taken[record.topic] += 1
        return applied


def _news(tables: Tables, state: UserState) -> list[int]:
    """Event times in a state's history that are newer than the user's known state."""
    known_ms = tables.users.newest_event_ms(state.user_id)
    return [
        past.event_time_ms for past in takewhile(lambda past: past.event_time_ms > known_ms, reversed(state.recent))
    ]


def _no_news(_: Tables, __: Item | ItemState) -> list[int]:
    return []


@dataclass(frozen=True, slots=True)
class _Kind:
    id_field: str
    decoder: MessageDecoder[Any]
    put: Callable[[Tables, Any], None]
    remove: Callable[[Tables, str], None]
    news: Callable[[Tables, Any], list[int]] = _no_news

    def apply(self, tables: Tables, record: Record, applied: Applied) -> None:
        """Applies one record, and notes what was new in it.

        Raises:
            MalformedRecord: it cannot be used.
        """
        if record.value is None:
            self.remove(tables, _key(record))
            return
        message = self.decoder.decode(record.value, record.headers)
        check_key(record.key, getattr(message, self.id_field), self.id_field.replace("_", " "))
        news = self.news(tables, message)
        self.put(tables, message)
        applied.event_times_ms += news
        if isinstance(message, UserState):
            applied.users.append(message)


def _key(record: Record) -> str:
    if not record.key:
        raise MalformedRecord("a removal without a key, which names what is removed")
    try:
        return record.key.decode()
    except UnicodeDecodeError as error:
        raise MalformedRecord(f"the key of a removal is not UTF-8: {error}") from error


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
