"""Reads the latest state of each user and item from the compacted topics, in bounded memory.

Compaction leaves older states of an id for a while, and a history of then must not be mixed with the one of now. So the
topics are read twice: first for the offset of each id's latest state, then for these states.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final, TypeVar

import structlog

from programs.topics import TopicSettings
from runtime.kafka import TopicFollower
from runtime.records import Record
from runtime.settings import KafkaSettings
from schemas.codec import MalformedRecord
from schemas.embeddings import decode_embedding
from schemas.messages import ItemState, UserState
from schemas.packed_states import StateDecoder

_POLL_MS: Final = 100
_AT_ONCE: Final = 2_000
S = TypeVar("S", UserState, ItemState)
log = structlog.get_logger(__name__)


class PublishedTopics:
    """What the topics of states hold.

    Args:
        kafka: how to reach them.
        topics: their names.
        chosen: partitions of those of which not all are read.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: TopicSettings,
        chosen: Mapping[str, Collection[int]] = MappingProxyType({}),
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        topic = topics.user_states
        self._chosen = {topic: chosen[topic]} if topic in chosen else {}
        self._users = StateDecoder(UserState, kafka.max_record_bytes)
        self._items = StateDecoder(ItemState, kafka.max_record_bytes)
        self._latest: dict[tuple[str, bytes], int] = {}

    @property
    def states(self) -> int:
        """How many ids have a state there, or have had one."""
        return len(self._latest)

    async def look(self) -> None:
        """Notes the offset of each id's latest state, or of the tombstone that ended it.

        Raises:
            BrokerError: if the topics cannot be read.
        """
        self._latest.clear()
        async for records in self._all():
            for record in records:
                self._latest[record.topic, record.key or b""] = record.offset

    async def read(self) -> AsyncIterator[tuple[list[UserState], list[ItemState]]]:
        """The latest states, or later ones where they came meanwhile. What cannot be decoded is told and left out.

        Raises:
            BrokerError: if the topics cannot be read.
        """
        async for records in self._all():
            users: list[UserState] = []
            items: list[ItemState] = []
            for record in records:
                if record.value is not None and record.offset >= self._latest.get((record.topic, record.key or b""), 0):
                    self._decode(record, users, items)
            yield users, items

    def _decode(self, record: Record, users: list[UserState], items: list[ItemState]) -> None:
        try:
            if record.topic == self._topics.user_states:
                users.append(_checked(self._users.decode(record.value, record.headers)))
            else:
                items.append(_checked(self._items.decode(record.value, record.headers)))
        except MalformedRecord as error:
            log.warning("a published state cannot be read and is made anew", record=str(record), cause=str(error))

    async def _all(self) -> AsyncIterator[list[Record]]:
        """All records up to where the topics end now."""
        follower = TopicFollower(
            self._kafka,
            (self._topics.user_states, self._topics.item_states),
            out_of_range="earliest",
            chosen=self._chosen,
        )
        async with following(follower):
            while not follower.caught_up:
                yield await follower.poll(max_records=_AT_ONCE, timeout_ms=_POLL_MS)


@asynccontextmanager
async def following(follower: TopicFollower) -> AsyncIterator[None]:
    """A follower started, and stopped at the end.

    Raises:
        BrokerError: if it cannot start.
    """
    await follower.start()
    try:
        yield
    finally:
        await follower.stop()


def _checked(state: S) -> S:
    """The state, if its embedding can be decoded.

    Raises:
        MalformedRecord: if it cannot.
    """
    if state.embedding is not None:
        decode_embedding(state.embedding)
    return state
