"""Encodes a batch as records: its dead letters and the states that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

from graph_updater.publication.batch import StateBatch
from graph_updater.state.published import PublishedStates
from graph_updater.state.shared_items import SharedItems
from programs.topics import TopicSettings
from runtime.clock import Clock
from runtime.records import OutRecord
from schemas.codec import WireFormat, encode, headers_for
from schemas.messages import ItemState, UserState
from schemas.packed_states import PACKED_HEADERS

StateFormat = Literal["packed"] | WireFormat
_PART_HEADERS: Final = tuple(headers_for("msgpack"))


class StateEncoder:
    """Encodes states.

    Args:
        topics: where they go.
        state_format: how they are encoded.
        clock: for the time of publication.
    """

    def __init__(self, topics: TopicSettings, state_format: StateFormat, clock: Clock) -> None:
        self._topics = topics
        self._clock = clock
        self._format = state_format
        self._headers = PACKED_HEADERS if state_format == "packed" else tuple(headers_for(state_format))

    def records(self, states: PublishedStates, batch: StateBatch, shared: SharedItems | None = None) -> list[OutRecord]:
        """The batch's dead letters, then its states as they are now, then the parts of items that this shard tells; a
        tombstone for each id that has left.
        """
        now_ms = self._clock.wall_ms()
        topics = self._topics
        if self._format == "packed":
            users, items = states.packed_users(batch.users, now_ms), states.packed_items(batch.items, now_ms)
        else:
            users = _encoded(batch.users, states.user_state, now_ms, self._format)
            items = _encoded(batch.items, states.item_state, now_ms, self._format)
        return [
            *(dead.letter for dead in batch.dead_letters),
            *self._records(topics.user_states, batch.users, users),
            *self._records(topics.item_states, batch.items, items),
            *(() if shared is None else self._parts(shared, batch.parts)),
        ]

    def _parts(self, shared: SharedItems, item_ids: Sequence[str]) -> Iterator[OutRecord]:
        for name, part in shared.parts(item_ids).items():
            value = None if part is None else encode(part, "msgpack")
            yield OutRecord(self._topics.item_parts, shared.shard.key_of(name).encode(), value, _PART_HEADERS)

    def _records(self, topic: str, ids: Sequence[str], values: Sequence[bytes | None]) -> Iterator[OutRecord]:
        for name, value in zip(ids, values, strict=True):
            yield OutRecord(topic, name.encode(), value, self._headers)


def _encoded(
    ids: Sequence[str], state_of: Callable[[str, int], UserState | ItemState], now_ms: int, wire_format: WireFormat
) -> list[bytes | None]:
    """The states of ids; None for one that has left, perhaps after the batch was collected."""
    values: list[bytes | None] = []
    for name in ids:
        try:
            values.append(encode(state_of(name, now_ms), wire_format))
        except KeyError:
            values.append(None)
    return values
