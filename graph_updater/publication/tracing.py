"""The trace of an interaction: `update state`, from its reading until the states that it changed are published.

Only interactions whose senders trace them. Their spans begin when their states are about to be published, so that the
states' records can tell the trace. Those of a transaction that fails are never sent; the next attempt makes others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from graph_updater.publication.batch import TracedInteraction
from programs.topics import TopicSettings
from runtime.clock import Clock
from runtime.records import Headers, OutRecord

if TYPE_CHECKING:
    from runtime.observability.spans import Attributes, Span, Tracer

ROOT: Final = "update state"
MOST_LINKS: Final = 32
State = tuple[str, bytes]
"""Topic and key of a state's record."""
log = structlog.get_logger(__name__)


class TracedUpdates:
    """Interactions whose states are being published.

    Args:
        spans: of the interactions.
        contexts: by state, the trace of the newest of its interactions.
        begun_ms: when publishing began, Unix milliseconds.
    """

    def __init__(self, spans: Sequence[Span], contexts: Mapping[State, Headers], begun_ms: int) -> None:
        self._spans = spans
        self._contexts = contexts
        self._begun_ms = begun_ms

    def labelled(self, records: Iterable[OutRecord]) -> list[OutRecord]:
        """The records, those of the interactions' users and items with their traces."""
        return [
            msgspec.structs.replace(record, headers=(*record.headers, *context))
            if (context := self._contexts.get((record.topic, record.key or b"")))
            else record
            for record in records
        ]

    def end(self, now_ms: int) -> None:
        """The states can be read now."""
        for span in self._spans:
            span.child("publish", self._begun_ms, now_ms, {"messaging.system": "kafka"}, "producer")
            span.end(now_ms)


class UpdateTracing:
    """Makes the spans of interactions.

    Args:
        tracer: begins them.
        topics: where interactions come from and states go.
        group_id: of the updaters.
        clock: wall time.
    """

    def __init__(self, tracer: Tracer, topics: TopicSettings, group_id: str, clock: Clock) -> None:
        self._tracer = tracer
        self._topics = topics
        self._group_id = group_id
        self._clock = clock

    def begin(self, traced: Sequence[TracedInteraction]) -> TracedUpdates:
        """Begins the spans of interactions, oldest first, whose states are published next.

        A state that several of them changed tells the trace of the newest, whose span is linked to the others'.
        """
        spans: list[Span] = []
        spans_of: dict[State, list[Span]] = defaultdict(list)
        try:
            for interaction in traced:
                states = self._states(interaction)
                earlier = dict.fromkeys(span for state in states for span in spans_of[state])
                links = list(earlier)[-MOST_LINKS:]
                span = self._tracer.start(
                    ROOT, interaction.context, interaction.read_ms, self._attributes(interaction), links
                )
                if span is not None:
                    spans.append(span)
                    for state in states:
                        spans_of[state].append(span)
        except Exception:  # no fault of a trace may keep states from being published
            log.exception("a trace could not be made")
        contexts = {state: of_state[-1].headers for state, of_state in spans_of.items() if of_state}
        return TracedUpdates(spans, contexts, self._clock.wall_ms())

    def _states(self, interaction: TracedInteraction) -> tuple[State, State]:
        return (
            (self._topics.user_states, interaction.user_id.encode()),
            (self._topics.item_states, interaction.item_id.encode()),
        )

    def _attributes(self, interaction: TracedInteraction) -> Attributes:
        return {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.destination.name": interaction.source.topic,
            "messaging.destination.partition.id": str(interaction.source.partition),
            "messaging.consumer.group.name": self._group_id,
            "messaging.kafka.offset": interaction.offset,
            "exitstream.event_id": interaction.event_id,
        }
