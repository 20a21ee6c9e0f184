"""Decodes records. A record that cannot be decoded is rejected with a reason, for its dead letter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from graph_updater.part_intake import PartIntake, Reject
from graph_updater.publication.batch import TracedInteraction
from graph_updater.state.shared_items import PartRecord
from runtime.clock import Clock
from runtime.foreign_keys import ForeignKeys
from runtime.observability.trace_context import is_sampled, trace_context
from runtime.records import Headers, Record
from schemas.codec import MalformedRecord, MessageDecoder, check_key
from schemas.messages import LEAST_WEIGHT, Interaction, Item


@dataclass(frozen=True)
class Batch:
    """The decoded records of a poll, in order of arrival."""

    interactions: list[Interaction] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    withdrawn_items: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    parts: list[PartRecord] = field(default_factory=list)
    refused_parts: list[Reject] = field(default_factory=list)
    traced: list[TracedInteraction] = field(default_factory=list)


class Intake:
    """Reads the input topics.

    Args:
        items_topic: topic of `Item`s; records of the other topic are `Interaction`s.
        max_bytes: longer records are rejected unread.
        max_event_lead_ms: an interaction dated further ahead is rejected: no later one could replace it until that time
            has come. Ahead of its record's time, so that reading it again gives the same result; and ahead of our clock
            in any case, for a record's time may be missing or as wrong as the event's. Only then does the result depend
            on the day: read again once that time has come, the interaction is taken in.
        clock: ours.
        foreign_keys: told of every interaction, where that is wanted.
        with_traces: note the interactions whose senders trace them.
        parts: reads what shards tell each other; None where one updater has all users.
        rejects_items: whether to refuse items that cannot be decoded; else another updater does.
    """

    def __init__(
        self,
        items_topic: str,
        *,
        max_bytes: int,
        max_event_lead_ms: int,
        clock: Clock,
        foreign_keys: ForeignKeys | None = None,
        with_traces: bool = False,
        parts: PartIntake | None = None,
        rejects_items: bool = True,
    ) -> None:
        self._items_topic = items_topic
        self._max_event_lead_ms = max_event_lead_ms
        self._clock = clock
        self._latest_ms = 0
        self._foreign_keys = foreign_keys
        self._with_traces = with_traces
        self._parts = parts
        self._rejects_items = rejects_items
        self._interactions = MessageDecoder(Interaction, max_bytes)
        self._items = MessageDecoder(Item, max_bytes)

    def read(self, records: Iterable[Record]) -> Batch:
        """Decodes records; each ends in exactly one part of the batch."""
        batch = Batch()
        # Never back: a clock that is set back must not make the present the future.
        self._latest_ms = max(self._latest_ms, self._clock.wall_ms() + self._max_event_lead_ms)
        told: list[Record] = []
        for record in records:
            if self._parts is not None and record.topic == self._parts.topic:
                told.append(record)
                continue
            try:
                if record.topic == self._items_topic:
                    self._read_item(record, batch)
                else:
                    interaction = self._read_interaction(record)
                    batch.interactions.append(interaction)
                    if self._with_traces and is_sampled(context := trace_context(record.headers)):
                        batch.traced.append(self._traced(interaction, record, context))
            except MalformedRecord as error:
                if self._rejects_items or record.topic != self._items_topic:
                    batch.rejects.append(Reject(record, str(error)))
        if self._parts is not None and told:
            parts, refused = self._parts.read(told)
            batch.parts.extend(parts)
            batch.refused_parts.extend(refused)
        return batch

    def _read_item(self, record: Record, batch: Batch) -> None:
        """An item, or its withdrawal: an empty value under its id."""
        if record.value is not None:
            item = self._items.decode(record.value, record.headers)
            check_key(record.key, item.item_id, "item id")
            batch.items.append(item)
            return
        if not record.key:
            raise MalformedRecord("empty value without a key: the key of a withdrawal names the item")
        try:
            batch.withdrawn_items.append(record.key.decode())
        except UnicodeDecodeError as error:
            raise MalformedRecord(f"empty value under a key that is no item id: {error}") from error

    def _read_interaction(self, record: Record) -> Interaction:
        interaction = self._interactions.decode(record.value, record.headers)
        if interaction.weight < LEAST_WEIGHT:
            raise MalformedRecord(
                f"`$.weight` is {interaction.weight}; weights begin at {LEAST_WEIGHT:f} "
                "(to take an interaction back, send a `removal`)"
            )
        time_ms = interaction.event_time_ms
        if time_ms > self._latest_ms or 0 <= record.timestamp_ms < time_ms - self._max_event_lead_ms:
            raise MalformedRecord(self._too_early(time_ms, record.timestamp_ms))
        if self._foreign_keys is not None:
            self._foreign_keys.check(record, interaction.user_id)
        return interaction

    def _traced(self, interaction: Interaction, record: Record, context: Headers) -> TracedInteraction:
        return TracedInteraction(
            interaction.user_id,
            interaction.item_id,
            interaction.event_id,
            record.source,
            record.offset,
            context,
            self._clock.wall_ms(),
        )

    def _too_early(self, time_ms: int, record_ms: int) -> str:
        now_ms = self._latest_ms - self._max_event_lead_ms
        since_ms, whose = (record_ms, "its record's time") if 0 <= record_ms <= now_ms else (now_ms, "our clock")
        return (
            f"`$.event_time_ms` lies {(time_ms - since_ms) / 1000:.0f} s ahead of {whose}; "
            f"up to {self._max_event_lead_ms / 1000:.0f} s are allowed (updater.max_event_lead_ms)"
        )
