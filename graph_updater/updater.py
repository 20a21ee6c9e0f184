"""Assembles the updater: bundle, snapshot, Kafka, HTTP. Catches up, stands by or leads, and drains at the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog

from graph_updater.engine import EngineThread, UpdaterEngine, warm_up
from graph_updater.graph.base_embeddings import BaseEmbeddings, bundled_base
from graph_updater.intake import Intake
from graph_updater.metrics import UpdaterMetrics
from graph_updater.origin import Origin
from graph_updater.pipeline import BACKLOG, Parts, Pipeline
from graph_updater.publication.batch import StateBatch
from graph_updater.publication.encoder import StateEncoder
from graph_updater.publication.outbox import Outbox
from graph_updater.publication.publisher import Publisher
from graph_updater.publication.standby import Leadership
from graph_updater.publication.tracing import UpdateTracing
from graph_updater.rebuild import Rebuilt, Sources, rebuild
from graph_updater.recovery import SNAPSHOT_KIND, Recovered, recover
from graph_updater.settings import UpdaterSettings
from graph_updater.snapshots import Snapshots
from graph_updater.state.snapshot_checks import SNAPSHOT_VERSION
from graph_updater.topic_watch import TopicsMadeAgain, watch_topics
from models.bundle_files import GraphPart
from models.bundle_store import current_version, resolve
from runtime.clock import Clock
from runtime.dead_letters import DeadLetters
from runtime.errors import BrokerError, OffsetsOutOfRange
from runtime.foreign_keys import ForeignKeys
from runtime.kafka import TopicFollower, probe, require_topics, topic_ids
from runtime.observability.http_status import http_status
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness
from runtime.observability.watchdog import Watchdog
from runtime.process.lifecycle import Spawn, owned_tasks, unless_stopped, watch_loop_lag
from runtime.records import OutRecord
from runtime.snapshots import SnapshotStore

if TYPE_CHECKING:
    from runtime.observability.spans import Tracer

_MEMORY_INTERVAL_S: Final = 10.0
_RETRY_S: Final = 1.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class UpdaterResources:
    """What stays the same while the program runs, also when the state is rebuilt.

    Attributes:
        base: base embeddings, from the model bundle.
        origin: what a snapshot must agree with.
        store: where the snapshots are.
        made_again: topics that were deleted and made again while the program ran.
    """

    base: BaseEmbeddings
    origin: Origin
    store: SnapshotStore
    made_again: frozenset[str] = frozenset()


def _load(address: str) -> GraphPart:
    folder = resolve(address)
    log.info("loading the bundle", address=address, folder=str(folder), model_version=current_version(folder))
    return GraphPart.load(folder)


class Updater:
    """One process of the updater.

    Args:
        settings: all settings.
        clock: source of time.
        tracer: of interactions; None where traces are off.

    Attributes:
        metrics: its metrics.
        readiness: ready once it has caught up.
    """

    def __init__(self, settings: UpdaterSettings, clock: Clock, tracer: Tracer | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self.metrics = UpdaterMetrics()
        self.readiness = Readiness([BACKLOG])
        self._outages = Outages(self.readiness, clock)
        self._watchdog = Watchdog(settings.telemetry, self.readiness, self._outages, self.metrics, clock)
        self._tracing = (
            None if tracer is None else UpdateTracing(tracer, settings.topics, settings.updater.group_id, clock)
        )
        self._has_run = False
        self._foreign_keys = ForeignKeys("interactions", self.metrics.foreign_keys.inc)
        topics = settings.topics
        self._inputs = (topics.interactions, topics.items)
        self._outputs = (topics.user_states, topics.item_states, *map(topics.dead_letter, self._inputs))

    async def main(self, stopping: asyncio.Event) -> None:
        """Runs until asked to stop. Recovers the state anew if Kafka no longer has the records to be read next.

        Raises:
            ExitstreamError: whatever keeps it from starting.
        """
        async with http_status(self._settings.telemetry, self.readiness, self.metrics):
            resources = await unless_stopped(stopping, self._resources())
            if resources is None:
                return
            is_in_range = True
            while True:
                try:
                    await self._run(resources, stopping, is_in_range=is_in_range)
                except BrokerError as error:
                    is_in_range = not isinstance(error, OffsetsOutOfRange)
                    if is_in_range and not isinstance(error, TopicsMadeAgain) and not self._has_run:
                        raise
                    log.warning("recovering the state anew", cause=str(error))
                    self.readiness.wait_for(BACKLOG, "recovering the state anew")
                    resources = await self._resources_again(resources)
                else:
                    return

    async def _resources(self) -> UpdaterResources:
        """Loads the bundle and checks brokers, topics and the snapshots' address."""
        updater, kafka = self._settings.updater, self._settings.kafka
        bundle = await asyncio.to_thread(_load, updater.bundle)
        await probe(kafka)
        cluster = await require_topics(kafka, (*self._inputs, *self._outputs))
        return UpdaterResources(
            base=bundled_base(bundle.graph, bundle.text),
            origin=Origin(bundle.version, cluster.id, self._inputs, await self._topic_ids(), bundle.space),
            store=SnapshotStore(
                updater.snapshots, kind=SNAPSHOT_KIND, version=SNAPSHOT_VERSION, keep=updater.snapshots_kept
            ),
        )

    async def _topic_ids(self) -> dict[str, str]:
        topics = self._settings.topics
        return await topic_ids(self._settings.kafka, (*self._inputs, topics.user_states, topics.item_states))

    async def _resources_again(self, before: UpdaterResources) -> UpdaterResources:
        """The same with the topics' present ids, once the broker tells them."""
        while True:
            try:
                await require_topics(self._settings.kafka, (*self._inputs, *self._outputs))
                present = await self._topic_ids()
            except BrokerError as error:
                self._outages.note("recovery", error)
                await asyncio.sleep(_RETRY_S)
            else:
                self._outages.over("recovery")
                known = before.origin.topic_ids
                again = frozenset(name for name in present if present[name] != known.get(name))
                return replace(
                    before, origin=replace(before.origin, topic_ids=present), made_again=before.made_again | again
                )

    async def _run(self, resources: UpdaterResources, stopping: asyncio.Event, *, is_in_range: bool) -> None:
        """Recovers the state, catches up, joins the group, reads and flushes until asked to stop, finishes."""
        with EngineThread() as thread:
            await thread(warm_up)
            recovered = await thread(self._recovered, resources)
            rebuilt: Rebuilt | None = None
            if not (recovered.offsets and recovered.is_published and is_in_range):
                rebuilt = await rebuild(recovered, self._sources(resources.made_again | recovered.made_again), thread)
            parts = self._parts(resources, recovered, rebuilt, thread)
            pipeline = Pipeline(parts, self._settings.updater)
            await parts.follower.start()
            log.info("reading up to the present", to_read=parts.follower.progress()[1])
            try:
                self._has_run = True
                async with owned_tasks() as spawn:
                    self._watch(parts, resources, spawn)
                    spawn(parts.snapshots.run(), "snapshots")
                    await pipeline.catch_up(stopping)
                    log.info(
                        "caught up, waiting to lead the group or standing by", group=self._settings.updater.group_id
                    )
                    spawn(parts.leadership.run(), "election")
                    flushing = spawn(pipeline.flush_often(stopping), "flushes")
                    await pipeline.read(stopping)
                    await flushing
                    await pipeline.finish()
            finally:
                await parts.leadership.stop()
                await parts.follower.stop()

    def _watch(self, parts: Parts, resources: UpdaterResources, spawn: Spawn) -> None:
        settings = self._settings
        spawn(watch_loop_lag(self.metrics.event_loop_lag.observe), "loop lag")
        spawn(self._watchdog.watch(parts.follower), "progress")
        spawn(watch_topics(settings.kafka, resources.origin.topic_ids, self._outages), "topics")
        spawn(self._watch_memory(parts.engine, parts.thread), "memory")

    async def _watch_memory(self, engine: UpdaterEngine, thread: EngineThread) -> None:
        while True:
            self.metrics.note_memory(await thread(engine.memory_report))
            self.metrics.note_not_finite(engine.not_finite)
            await asyncio.sleep(_MEMORY_INTERVAL_S)

    def _recovered(self, resources: UpdaterResources) -> Recovered:
        return recover(resources.store, self._settings.updater.graph, resources.base, resources.origin)

    def _sources(self, made_again: frozenset[str]) -> Sources:
        settings = self._settings
        return Sources(
            kafka=settings.kafka,
            topics=settings.topics,
            group_id=settings.updater.group_id,
            intake=self._intake(),
            letters=self._letters(),
            metrics=self.metrics,
            made_again=made_again,
        )

    def _intake(self) -> Intake:
        settings = self._settings
        return Intake(
            settings.topics.items,
            max_bytes=settings.kafka.max_record_bytes,
            max_event_lead_ms=settings.updater.max_event_lead_ms,
            clock=self._clock,
            foreign_keys=self._foreign_keys,
            with_traces=self._tracing is not None,
        )

    def _letters(self) -> DeadLetters:
        return DeadLetters("updater", self._settings.topics.dead_letter_suffix, self._clock)

    def _parts(
        self, resources: UpdaterResources, recovered: Recovered, rebuilt: Rebuilt | None, thread: EngineThread
    ) -> Parts:
        settings, clock, updater = self._settings, self._clock, self._settings.updater
        offsets = recovered.offsets if rebuilt is None else rebuilt.offsets
        encoder = StateEncoder(settings.topics, settings.kafka.wire_format, clock)
        engine = UpdaterEngine(recovered.state, self._intake(), self._letters(), encoder, offsets)
        follower = TopicFollower(
            settings.kafka, self._inputs, start_from=offsets, group_id=updater.group_id, outages=self._outages
        )
        leadership = Leadership(
            settings.election, settings.kafka, settings.topics.interactions, updater.group_id, self._outages
        )

        async def encode(batch: StateBatch) -> list[OutRecord]:
            return await thread(engine.encode, batch)

        outbox = Outbox(rebuilt=rebuilt is not None)
        if rebuilt is not None and rebuilt.unsent.dead_letters:
            outbox.add(rebuilt.unsent)
        return Parts(
            follower=follower,
            engine=engine,
            thread=thread,
            leadership=leadership,
            publisher=Publisher(leadership, outbox, follower, encode, self.metrics, clock, self._tracing),
            snapshots=Snapshots(resources.store, resources.origin, updater.snapshot_interval_s, clock, self.metrics),
            readiness=self.readiness,
            outages=self._outages,
            metrics=self.metrics,
            clock=clock,
        )
