"""Makes the parts of a run: follower, engine, leadership, publisher, snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graph_updater.beginning import Beginning
from graph_updater.engine import EngineStates, EngineThread, UpdaterEngine
from graph_updater.intake import Intake
from graph_updater.metrics import UpdaterMetrics
from graph_updater.part_intake import PartIntake
from graph_updater.pipeline import Parts
from graph_updater.publication.encoder import StateEncoder
from graph_updater.publication.publisher import Publisher
from graph_updater.publication.standby import Leadership
from graph_updater.publication.tracing import UpdateTracing
from graph_updater.rebuild import Sources
from graph_updater.resources import UpdaterResources, input_topics
from graph_updater.settings import UpdaterSettings
from graph_updater.snapshots import Snapshots
from runtime.clock import Clock
from runtime.dead_letters import DeadLetters
from runtime.foreign_keys import ForeignKeys
from runtime.kafka import TopicFollower
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness

if TYPE_CHECKING:
    from runtime.observability.spans import Tracer


class Assembly:
    """Makes the parts of each run of a program.

    Args:
        settings: all settings.
        clock: source of time.
        metrics: of the program.
        readiness: of the program.
        outages: of the program.
        tracer: of interactions; None where traces are off.
    """

    def __init__(
        self,
        settings: UpdaterSettings,
        clock: Clock,
        metrics: UpdaterMetrics,
        readiness: Readiness,
        outages: Outages,
        tracer: Tracer | None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._readiness = readiness
        self._outages = outages
        self._tracing = (
            None if tracer is None else UpdateTracing(tracer, settings.topics, settings.updater.own_group, clock)
        )
        self._foreign_keys = ForeignKeys("interactions", metrics.foreign_keys.inc)

    def sources(self, resources: UpdaterResources) -> Sources:
        """What a rebuild reads."""
        settings = self._settings
        return Sources(
            kafka=settings.kafka,
            topics=settings.topics,
            group_id=settings.updater.own_group,
            former_groups=settings.updater.former_groups,
            intake=self._intake(resources),
            letters=self._letters(),
            metrics=self._metrics,
            made_again=resources.made_again,
            chosen=resources.chosen,
        )

    def parts(self, resources: UpdaterResources, beginning: Beginning, thread: EngineThread) -> Parts:
        """The parts of a run that begins with this state."""
        settings, clock, updater = self._settings, self._clock, self._settings.updater
        state_format = "packed" if updater.state_format == "packed" else settings.kafka.wire_format
        encoder = StateEncoder(settings.topics, state_format, clock)
        engine = UpdaterEngine(
            beginning.state,
            self._intake(resources),
            self._letters(),
            encoder,
            beginning.offsets,
            updater.parts_interval_ms / 1000,
            clock,
        )
        follower = TopicFollower(
            settings.kafka,
            input_topics(settings),
            start_from=beginning.offsets,
            group_id=updater.own_group,
            outages=self._outages,
            chosen={topic: numbers for topic, numbers in resources.chosen.items() if topic in input_topics(settings)},
        )
        leadership = Leadership(
            settings.election, settings.kafka, settings.topics.interactions, updater.own_group, self._outages
        )
        states = EngineStates(engine, thread)
        return Parts(
            follower=follower,
            engine=engine,
            thread=thread,
            leadership=leadership,
            publisher=Publisher(
                leadership,
                beginning.outbox,
                follower,
                states,
                self._metrics,
                clock,
                self._tracing,
                updater.state_bytes_per_s,
            ),
            snapshots=Snapshots(resources.store, resources.origin, updater.snapshot_interval_s, clock, self._metrics),
            readiness=self._readiness,
            outages=self._outages,
            metrics=self._metrics,
            clock=clock,
        )

    def _intake(self, resources: UpdaterResources) -> Intake:
        settings, base, shard = self._settings, resources.base, self._settings.updater.own_shard
        shape, most = (len(base.alphas) - 1, base.dim), settings.kafka.max_record_bytes
        parts = PartIntake(settings.topics.item_parts, shard, base.space, shape, most)
        return Intake(
            settings.topics.items,
            max_bytes=settings.kafka.max_record_bytes,
            max_event_lead_ms=settings.updater.max_event_lead_ms,
            clock=self._clock,
            foreign_keys=self._foreign_keys,
            with_traces=self._tracing is not None,
            parts=parts if shard.is_one_of_several else None,
            rejects_items=shard.number == 0,
        )

    def _letters(self) -> DeadLetters:
        return DeadLetters("updater", self._settings.topics.dead_letter_suffix, self._clock)
