"""Encodes a batch as records: its dead letters and the states that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from graph_updater.publication.batch import StateBatch
from graph_updater.state.published import PublishedStates
from programs.topics import TopicSettings
from runtime.clock import Clock
from runtime.records import OutRecord
from schemas.codec import WireFormat, encode, headers_for
from schemas.messages import ItemState, UserState


class StateEncoder:
    """Encodes states.

    Args:
        topics: where they go.
        wire_format: how they are encoded.
        clock: for the time of publication.
    """

    def __init__(self, topics: TopicSettings, wire_format: WireFormat, clock: Clock) -> None:
        self._topics = topics
        self._wire_format = wire_format
        self._headers = tuple(headers_for(wire_format))
        self._clock = clock

    def records(self, states: PublishedStates, batch: StateBatch) -> list[OutRecord]:
        """The batch's dead letters, then its states as they are now; a tombstone for each id that has left."""
        return [
            *(dead.letter for dead in batch.dead_letters),
            *self._encoded(self._topics.user_states, batch.users, states.user_state),
            *self._encoded(self._topics.item_states, batch.items, states.item_state),
        ]

    def _encoded(
        self, topic: str, ids: Sequence[str], state_of: Callable[[str, int], UserState | ItemState]
    ) -> Iterator[OutRecord]:
        now_ms = self._clock.wall_ms()
        for name in ids:
            try:
                value = encode(state_of(name, now_ms), self._wire_format)
            except KeyError:  # has left, perhaps after the batch was collected
                value = None
            yield OutRecord(topic, name.encode(), value, self._headers)
