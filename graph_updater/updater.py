"""Assembles the updater: bundle, snapshot, Kafka, HTTP. Catches up, stands by or leads, and drains at the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from graph_updater.engine import EngineThread, UpdaterEngine, warm_up
from graph_updater.graph.base_embeddings import BaseEmbeddings, bundled_base
from graph_updater.intake import Intake
from graph_updater.metrics import UpdaterMetrics
from graph_updater.pipeline import Parts, Pipeline
from graph_updater.publication.encoder import StateEncoder
from graph_updater.publication.outbox import Outbox, StateBatch
from graph_updater.publication.publisher import Publisher
from graph_updater.publication.standby import Leadership
from graph_updater.recovery import SNAPSHOT_KIND, Origin, Recovered, Snapshots, from_scratch, recover
from graph_updater.settings import UpdaterSettings
from graph_updater.state.snapshot import SNAPSHOT_VERSION
from models.bundle_files import GraphPart
from runtime.clock import Clock
from runtime.dead_letters import DeadLetters
from runtime.errors import OffsetsOutOfRange
from runtime.kafka import TopicFollower, probe, require_topics
from runtime.observability.http_status import http_status
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness
from runtime.observability.watchdog import Watchdog
from runtime.process.lifecycle import owned_tasks, watch_loop_lag
from runtime.records import OutRecord
from runtime.snapshots import SnapshotStore

BACKLOG: Final = "backlog"
"""The readiness condition that holds once the records present at the start have been read."""
_MEMORY_INTERVAL_S: Final = 10.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class UpdaterResources:
    """What stays the same while the program runs, also when the state is rebuilt.

    Attributes:
        base: base embeddings, from the model bundle.
        origin: what a snapshot must agree with.
        store: where the snapshots are.
    """

    base: BaseEmbeddings
    origin: Origin
    store: SnapshotStore


class Updater:
    """One process of the updater.

    Args:
        settings: all settings.
        clock: source of time.

    Attributes:
        metrics: its metrics.
        readiness: ready once it has caught up.
    """

    def __init__(self, settings: UpdaterSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self.metrics = UpdaterMetrics()
        self.readiness = Readiness([BACKLOG])
        self._outages = Outages(self.readiness, clock)
        self._watchdog = Watchdog(settings.telemetry, self.readiness, self._outages, self.metrics, clock)
        topics = settings.topics
        self._inputs = (topics.interactions, topics.items)
        self._outputs = (topics.user_states, topics.item_states, *map(topics.dead_letter, self._inputs))

    async def main(self, stopping: asyncio.Event) -> None:
        """Runs until asked to stop. Rebuilds the state if Kafka no longer keeps the records to be read next.

        Raises:
            ExitstreamError: whatever keeps it from running.
        """
        async with http_status(self._settings.telemetry, self.readiness, self.metrics):
            resources = await self._resources()
            try:
                await self._run(resources, stopping, rebuild=False)
            except OffsetsOutOfRange as error:
                log.warning("rebuilding the state from the earliest records", cause=str(error))
                self.metrics.rebuilds.inc()
                self.readiness.wait_for(BACKLOG, "rebuilding the state")
                await self._run(resources, stopping, rebuild=True)

    async def _resources(self) -> UpdaterResources:
        """Loads the bundle and checks brokers, topics and the snapshots' address."""
        updater, kafka = self._settings.updater, self._settings.kafka
        bundle = await asyncio.to_thread(GraphPart.load, updater.bundle)
        await probe(kafka)
        cluster = await require_topics(kafka, (*self._inputs, *self._outputs))
        return UpdaterResources(
            base=bundled_base(bundle.graph, bundle.text),
            origin=Origin(bundle.version, cluster.id, self._inputs),
            store=SnapshotStore(
                updater.snapshots, kind=SNAPSHOT_KIND, version=SNAPSHOT_VERSION, keep=updater.snapshots_kept
            ),
        )

    async def _run(self, resources: UpdaterResources, stopping: asyncio.Event, *, rebuild: bool) -> None:
        """Recovers the state, catches up, joins the group, reads and flushes until asked to stop, finishes."""
        with EngineThread() as thread:
            await thread(warm_up)
            recovered = await thread(self._state, resources, rebuild=rebuild)
            parts = self._parts(resources, recovered, thread)
            pipeline = Pipeline(parts, self._settings.updater)
            await parts.follower.start()
            try:
                async with owned_tasks() as spawn:
                    spawn(watch_loop_lag(self.metrics.event_loop_lag.observe), "loop lag")
                    spawn(self._watchdog.watch(parts.follower), "progress")
                    spawn(self._watch_memory(parts.engine, thread), "memory")
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

    async def _watch_memory(self, engine: UpdaterEngine, thread: EngineThread) -> None:
        while True:
            self.metrics.note_memory(await thread(engine.memory_report))
            self.metrics.note_not_finite(engine.not_finite)
            await asyncio.sleep(_MEMORY_INTERVAL_S)

    def _state(self, resources: UpdaterResources, *, rebuild: bool) -> Recovered:
        config = self._settings.updater.graph
        if rebuild:
            return from_scratch(config, resources.base)
        return recover(resources.store, config, resources.base, resources.origin)

    def _parts(self, resources: UpdaterResources, recovered: Recovered, thread: EngineThread) -> Parts:
        settings, clock, updater = self._settings, self._clock, self._settings.updater
        intake = Intake(
            settings.topics.items,
            max_bytes=settings.kafka.max_record_bytes,
            max_event_lead_ms=updater.max_event_lead_ms,
            clock=clock,
            on_foreign_key=self.metrics.foreign_keys.inc,
        )
        engine = UpdaterEngine(
            recovered.state,
            intake,
            DeadLetters("updater", settings.topics.dead_letter_suffix, clock),
            StateEncoder(settings.topics, settings.kafka.wire_format, clock),
            recovered.offsets,
        )
        follower = TopicFollower(
            settings.kafka,
            self._inputs,
            start_offsets=recovered.offsets,
            group_id=updater.group_id,
            outages=self._outages,
        )
        leadership = Leadership(settings.election, settings.kafka, settings.topics.interactions, updater.group_id)

        async def encode(batch: StateBatch) -> list[OutRecord]:
            return await thread(engine.encode, batch)

        return Parts(
            follower=follower,
            engine=engine,
            thread=thread,
            leadership=leadership,
            publisher=Publisher(
                leadership, Outbox(full_republish=recovered.from_scratch), follower, encode, self.metrics, clock
            ),
            snapshots=Snapshots(resources.store, resources.origin, updater.snapshot_interval_s, clock, self.metrics),
            metrics=self.metrics,
            clock=clock,
        )
