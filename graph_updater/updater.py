"""Puts the updater together: bundle, snapshot, Kafka, HTTP; catches up, then stands by or leads, at the end drains."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from graph_updater.base_embeddings import BaseEmbeddings
from graph_updater.bundled_base import bundled_base
from graph_updater.compute import ComputeThread
from graph_updater.engine import Engine
from graph_updater.intake import Intake
from graph_updater.metrics import UpdaterMetrics
from graph_updater.outbox import Outbox
from graph_updater.pipeline import Parts, Pipeline
from graph_updater.publishing import StateEncoder
from graph_updater.recovery import SNAPSHOT_KIND, Origin, Recovered, Snapshots, from_scratch, recover
from graph_updater.settings import UpdaterSettings
from graph_updater.snapshot import SNAPSHOT_VERSION
from graph_updater.standby import Leadership
from graph_updater.warm_up import warm_up
from models.bundle_files import GraphPart
from runtime.clock import Clock
from runtime.dead_letters import DeadLetters
from runtime.errors import OffsetsOutOfRange
from runtime.kafka import TopicFollower, probe, require_topics
from runtime.observability.http_status import http_status
from runtime.observability.readiness import Readiness
from runtime.observability.watchdog import watch_progress
from runtime.process.lifecycle import owned_tasks, watch_loop_lag
from runtime.snapshots import SnapshotStore

BACKLOG: Final = "backlog"
"""The readiness condition that holds once everything that was there at the start has been read."""
_MEMORY_INTERVAL_S: Final = 10.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Foundation:
    """What an updater stands on, whatever its state.

    Attributes:
        base: what the bundle gives the graph.
        origin: what a snapshot must agree with.
        store: where the snapshots are.
    """

    base: BaseEmbeddings
    origin: Origin
    store: SnapshotStore


class Updater:
    """One process of the updater.

    Args:
        settings: all of them.
        clock: where time comes from.

    Attributes:
        metrics: what it tells about itself.
        readiness: whether it has caught up.
    """

    def __init__(self, settings: UpdaterSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self.metrics = UpdaterMetrics()
        self.readiness = Readiness([BACKLOG])
        topics = settings.topics
        self._inputs = (topics.interactions, topics.items)
        self._outputs = (topics.user_states, topics.item_states, *map(topics.dead_letter, self._inputs))

    async def main(self, stopping: asyncio.Event) -> None:
        """Runs until asked to stop; where Kafka no longer keeps what was to be read next, builds the state anew.

        Raises:
            ExitstreamError: whatever keeps it from running.
        """
        async with http_status(self._settings.telemetry, self.readiness, self.metrics):
            foundation = await self._foundation()
            try:
                await self._run(foundation, stopping, anew=False)
            except OffsetsOutOfRange as error:
                log.warning("building the state anew from the earliest records", cause=str(error))
                self.metrics.rebuilds.inc()
                self.readiness.wait_for(BACKLOG, "building the state anew")
                await self._run(foundation, stopping, anew=True)

    async def _foundation(self) -> Foundation:
        """What stays the same while the program runs, all of it checked."""
        updater, kafka = self._settings.updater, self._settings.kafka
        bundle = await asyncio.to_thread(GraphPart.load, updater.bundle)
        await probe(kafka)
        cluster = await require_topics(kafka, (*self._inputs, *self._outputs))
        return Foundation(
            base=bundled_base(bundle.graph, bundle.text),
            origin=Origin(bundle.version, cluster.id, self._inputs),
            store=SnapshotStore(
                updater.snapshots, kind=SNAPSHOT_KIND, version=SNAPSHOT_VERSION, keep=updater.snapshots_kept
            ),
        )

    async def _run(self, foundation: Foundation, stopping: asyncio.Event, *, anew: bool) -> None:
        """From a state to the end: catch up, join the group, read and flush, finish."""
        with ComputeThread() as compute:
            await compute(warm_up)
            recovered = await compute(self._state, foundation, anew=anew)
            parts = self._parts(foundation, recovered, compute)
            pipeline = Pipeline(parts, self._settings.updater)
            await parts.follower.start()
            try:
                async with owned_tasks() as spawn:
                    spawn(watch_loop_lag(self.metrics.event_loop_lag.observe), "loop lag")
                    spawn(
                        watch_progress(
                            parts.follower, self._clock, self._settings.telemetry, self.readiness, self.metrics
                        ),
                        "progress",
                    )
                    spawn(self._watch_memory(parts.engine, compute), "memory")
                    await pipeline.catch_up(stopping)
                    await parts.leadership.start()
                    spawn(parts.leadership.run(), "election")
                    flushing = spawn(pipeline.flush_often(stopping), "flushes")
                    self.readiness.ready(BACKLOG)
                    await pipeline.read(stopping)
                    await flushing
                    await pipeline.finish()
            finally:
                await parts.leadership.stop()
                await parts.follower.stop()

    async def _watch_memory(self, engine: Engine, compute: ComputeThread) -> None:
        while True:
            self.metrics.note_memory(await compute(engine.memory_report))
            await asyncio.sleep(_MEMORY_INTERVAL_S)

    def _state(self, foundation: Foundation, *, anew: bool) -> Recovered:
        config = self._settings.updater.graph.config()
        if anew:
            return from_scratch(config, foundation.base)
        return recover(foundation.store, config, foundation.base, foundation.origin)

    def _parts(self, foundation: Foundation, recovered: Recovered, compute: ComputeThread) -> Parts:
        settings, clock, updater = self._settings, self._clock, self._settings.updater
        intake = Intake(
            settings.topics.items,
            max_bytes=settings.kafka.max_record_bytes,
            max_event_lead_ms=updater.max_event_lead_ms,
        )
        letters = DeadLetters("updater", settings.topics.dead_letter_suffix, clock)
        encoder = StateEncoder(settings.topics, settings.kafka.wire_format, clock)
        return Parts(
            follower=TopicFollower(
                settings.kafka, self._inputs, start_offsets=recovered.frontier, group_id=updater.group_id
            ),
            engine=Engine(recovered.state, intake, letters, encoder, recovered.frontier),
            compute=compute,
            leadership=Leadership(settings.election, settings.kafka, settings.topics.interactions, updater.group_id),
            outbox=Outbox(everything=recovered.from_scratch),
            snapshots=Snapshots(foundation.store, foundation.origin, updater.snapshot_interval_s, clock, self.metrics),
            metrics=self.metrics,
            clock=clock,
        )
