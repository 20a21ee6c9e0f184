"""States to records, and a parcel's records to Kafka with the offsets that say so.

The order that loses nothing, however it is interrupted:
    1. the states, in transactions of a bounded size;
    2. the dead letters, each transaction with the offsets up to the first letter that is still to come;
    3. with the last of them the offsets up to which the parcel stands.
Mostly all of it is one transaction. A reader sees each one whole. Whoever leads after a crash finds the committed
offsets before the parcel, and publishes what they do not cover from his own state, which the same records made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import structlog

from graph_updater.outbox import Frontier, Parcel
from graph_updater.standby import Reign
from graph_updater.state import UpdaterState
from programs.topics import TopicSettings
from runtime.clock import Clock
from runtime.records import OutRecord
from schemas.codec import WireFormat, encode, headers_for

MOST_AT_ONCE: Final = 5_000
"""Records per transaction: well below its time-out on a slow broker."""
log = structlog.get_logger(__name__)


class StateEncoder:
    """Makes records of states.

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

    def records(self, state: UpdaterState, parcel: Parcel) -> list[OutRecord]:
        """A parcel's dead letters, then the states that it names, as they are now; a tombstone for who has left."""
        return [
            *(dead.letter for dead in parcel.dead_letters),
            *self._users(state, parcel.users),
            *self._items(state, parcel.items),
        ]

    def _users(self, state: UpdaterState, user_ids: Sequence[str]) -> Iterator[OutRecord]:
        now_ms, topic = self._clock.wall_ms(), self._topics.user_states
        for user_id in user_ids:
            try:
                value = encode(state.user_state(user_id, now_ms), self._wire_format)
            except KeyError:  # has left, perhaps since the parcel was made
                value = None
            yield OutRecord(topic, user_id.encode(), value, self._headers)

    def _items(self, state: UpdaterState, item_ids: Sequence[str]) -> Iterator[OutRecord]:
        now_ms, topic = self._clock.wall_ms(), self._topics.item_states
        for item_id in item_ids:
            try:
                value = encode(state.item_state(item_id, now_ms), self._wire_format)
            except KeyError:
                value = None
            yield OutRecord(topic, item_id.encode(), value, self._headers)


async def transact(reign: Reign, group_id: str, records: Sequence[OutRecord], frontier: Frontier) -> None:
    """Writes records, and the offsets of the frontier where there are any, in one transaction.

    A state too large to be written stays as it was published last, and is told in the log: the rest must not wait.

    Raises:
        TransactionFailed: the reign is over; nothing of it happened, or that is not known.
        BrokerError: on anything that trying again does not mend.
    """
    async with reign.transaction() as transaction:
        for record in records:
            if not transaction.fits(record):
                log.warning(
                    "a state is too large to be published", topic=record.topic, key=record.key, bytes=record.size
                )
        if frontier:  # first: while a broker writes this down it refuses the transaction's records
            await transaction.commit_offsets(group_id, frontier)
        await transaction.send_all(filter(transaction.fits, records))
