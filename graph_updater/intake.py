"""Decodes records. A record that cannot be decoded is rejected with a reason, for its dead letter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from runtime.records import Record
from schemas.codec import MalformedRecord, MessageDecoder
from schemas.messages import Interaction, Item


class Reject(NamedTuple):
    """A record that cannot be decoded, and why."""

    record: Record
    reason: str


@dataclass(frozen=True)
class Batch:
    """The decoded records of a poll, in order of arrival."""

    interactions: list[Interaction] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    withdrawn_items: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


class Intake:
    """Reads both input topics.

    Args:
        items_topic: topic of `Item`s; records of the other topic are `Interaction`s.
        max_bytes: longer records are rejected unread.
        max_event_lead_ms: an interaction dated further ahead of its record's time is rejected: no later one could
            replace it until that time has come. The record's time is used, not the clock, so that reading it again
            gives the same result.
    """

    def __init__(self, items_topic: str, *, max_bytes: int, max_event_lead_ms: int) -> None:
        self._items_topic = items_topic
        self._max_event_lead_ms = max_event_lead_ms
        self._interactions = MessageDecoder(Interaction, max_bytes)
        self._items = MessageDecoder(Item, max_bytes)

    def read(self, records: Iterable[Record]) -> Batch:
        """Decodes records; each ends in exactly one part of the batch."""
        batch = Batch()
        for record in records:
            try:
                if record.topic == self._items_topic:
                    self._read_item(record, batch)
                else:
                    batch.interactions.append(self._read_interaction(record))
            except MalformedRecord as error:
                batch.rejects.append(Reject(record, str(error)))
        return batch

    def _read_item(self, record: Record, batch: Batch) -> None:
        """An item, or its withdrawal: an empty value under its id."""
        if record.value is not None:
            batch.items.append(self._items.decode(record.value, record.headers))
            return
        try:
            batch.withdrawn_items.append((record.key or b"").decode())
        except UnicodeDecodeError as error:
            raise MalformedRecord(f"empty value under a key that is no item id: {error}") from error

    def _read_interaction(self, record: Record) -> Interaction:
        interaction = self._interactions.decode(record.value, record.headers)
        lead_ms = interaction.event_time_ms - record.timestamp_ms
        if record.timestamp_ms >= 0 and lead_ms > self._max_event_lead_ms:
            raise MalformedRecord(
                f"`$.event_time_ms` lies {lead_ms / 1000:.0f} s after the record was written; "
                f"up to {self._max_event_lead_ms / 1000:.0f} s are allowed (updater.max_event_lead_ms)"
            )
        return interaction
