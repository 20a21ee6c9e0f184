"""Runs the updater: recovers a state, catches up, stands by or leads, goes over to new bundles, drains at the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from graph_updater.assembly import Assembly
from graph_updater.beginning import Beginning, Carried, begin, begin_again
from graph_updater.bundles import Bundles
from graph_updater.engine import EngineThread, UpdaterEngine, warm_up
from graph_updater.metrics import UpdaterMetrics
from graph_updater.partitions import watch_partitions
from graph_updater.pipeline import BACKLOG, Parts, Pipeline
from graph_updater.resources import UpdaterResources, find_again, find_resources
from graph_updater.settings import UpdaterSettings
from graph_updater.state.snapshot_checks import IncompatibleSnapshot
from graph_updater.topic_watch import TopicsMadeAgain, watch_topics
from models.bundle_files import GraphPart
from runtime.clock import Clock
from runtime.errors import BrokerError, OffsetsOutOfRange
from runtime.observability.http_status import http_status
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness
from runtime.observability.stages import stage
from runtime.observability.watchdog import Watchdog
from runtime.process.lifecycle import Spawn, owned_tasks, unless_stopped, watch_loop_lag

if TYPE_CHECKING:
    from runtime.observability.spans import Tracer

_MEMORY_INTERVAL_S: Final = 10.0
log = structlog.get_logger(__name__)


class Updater:
    """One process of the updater.

    A run lasts until the program is asked to stop, until the state has to be recovered anew, or until the bundle has a
    version of another space: then the next run goes on with the state of this one.

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
        self.metrics.shards.set(settings.updater.shards)
        self.readiness = Readiness([BACKLOG])
        self._outages = Outages(self.readiness, clock)
        self._watchdog = Watchdog(settings.telemetry, self.readiness, self._outages, self.metrics, clock)
        self._assembly = Assembly(settings, clock, self.metrics, self.readiness, self._outages, tracer)
        self._bundles = Bundles(settings.updater, clock, self.metrics)
        self._resources: UpdaterResources
        self._carried: Carried | None = None
        self._has_run = False

    async def main(self, stopping: asyncio.Event) -> None:
        """Runs until asked to stop. Recovers the state anew if Kafka no longer has the records to be read next.

        Raises:
            ExitstreamError: whatever keeps it from starting.
        """
        async with http_status(self._settings.telemetry, self.readiness, self.metrics):
            found = await unless_stopped(stopping, self._find_resources())
            is_in_range = True
            while found is not None and not stopping.is_set():
                self._resources = found
                try:
                    await self._run(stopping, is_in_range=is_in_range)
                except BrokerError as error:
                    is_in_range = not isinstance(error, OffsetsOutOfRange)
                    if is_in_range and not isinstance(error, TopicsMadeAgain) and not self._has_run:
                        raise
                    log.warning("recovering the state anew", cause=str(error))
                    self.readiness.wait_for(BACKLOG, "recovering the state anew")
                    found = await unless_stopped(stopping, find_again(self._settings, self._resources, self._outages))
                    if found is not None and found.origin.topic_ids != self._resources.origin.topic_ids:
                        self._carried = None  # its offsets count other records
                else:
                    found, is_in_range = self._resources, True

    async def _find_resources(self) -> UpdaterResources:
        with stage("bundle", self._clock):
            bundle = await self._bundles.load()
        return await find_resources(self._settings, bundle)

    async def _run(self, stopping: asyncio.Event, *, is_in_range: bool) -> None:
        """Recovers the state, catches up, joins the group, reads and flushes until it has to end, finishes."""
        end = _End()
        with EngineThread() as thread:
            with stage("state", self._clock):
                beginning = await unless_stopped(stopping, self._beginning(thread, is_in_range=is_in_range))
            if beginning is None:
                return
            parts = self._assembly.parts(self._resources, beginning, thread)
            pipeline = Pipeline(parts, self._settings.updater)
            await parts.follower.start()
            log.info("reading up to the present", to_read=parts.follower.progress()[1])
            try:
                self._has_run, self._carried = True, None
                async with owned_tasks() as spawn:
                    self._watch(parts, spawn)
                    spawn(end.with_program(stopping), "stop")
                    spawn(self._follow_bundle(parts, end), "bundle")
                    spawn(parts.snapshots.run(), "snapshots")
                    with stage("catching up", self._clock):
                        await pipeline.catch_up(end.event)
                    log.info(
                        "caught up, waiting to lead the group or standing by", group=self._settings.updater.own_group
                    )
                    spawn(parts.leadership.run(), "election")
                    flushing = spawn(pipeline.flush_often(end.event), "flushes")
                    await pipeline.read(end.event)
                    await flushing
                    await self._finish(pipeline, end, stopping)
            finally:
                await parts.leadership.stop()
                await parts.follower.stop()
                self.metrics.leading.set(0)

    async def _beginning(self, thread: EngineThread, *, is_in_range: bool) -> Beginning:
        """From the state of the run before, if it ended for another bundle, or else from a snapshot or the topics."""
        with stage("kernels", self._clock):
            await thread(warm_up)
        resources, config = self._resources, self._settings.updater.graph
        sources = self._assembly.sources(resources)
        if self._carried is not None:
            try:
                return await begin_again(self._carried, resources, config, sources, thread, is_in_range=is_in_range)
            except IncompatibleSnapshot as error:
                log.warning("the state does not fit the bundle, going back to a snapshot", cause=str(error))
                self._carried = None
        return await begin(resources, config, sources, thread, is_in_range=is_in_range)

    async def _finish(self, pipeline: Pipeline, end: _End, stopping: asyncio.Event) -> None:
        """Ends a run in order; if another bundle is the reason, its state is what the next run begins with."""
        if end.bundle is not None and not stopping.is_set():
            await pipeline.finish(hands_over=True)
        if end.bundle is None or stopping.is_set():
            await pipeline.finish()
        else:
            self._carried = await pipeline.hand_over()
            self._resources = self._resources.with_bundle(end.bundle)

    async def _follow_bundle(self, parts: Parts, end: _End) -> None:
        """Takes over the bundle's new versions; ends the run for one of another space."""
        while end.bundle is None:
            former = self._resources.origin.model_version
            bundle = await self._bundles.next(former)
            self.metrics.bundle_changes.inc()
            if bundle.space == self._resources.base.space:
                self._resources = self._resources.with_version_of(bundle)
                parts.snapshots.origin = self._resources.origin
                await parts.thread(parts.engine.keep_histories_of, bundle.history_length)
                log.info("going on with a bundle of the same graph", former=former, version=bundle.version)
            else:
                log.info(
                    "going over to another bundle: embeddings are made anew", former=former, version=bundle.version
                )
                self.readiness.wait_for(BACKLOG, f"going over to the bundle's version {bundle.version}")
                end.bundle = bundle
                end.event.set()

    def _watch(self, parts: Parts, spawn: Spawn) -> None:
        settings = self._settings
        spawn(watch_loop_lag(self.metrics.event_loop_lag.observe), "loop lag")
        spawn(self._watchdog.watch(parts.follower), "progress")
        spawn(watch_topics(settings.kafka, self._resources.origin.topic_ids, self._outages), "topics")
        spawn(watch_partitions(self._settings, self._resources.chosen, self._outages), "partitions")
        spawn(self._watch_memory(parts.engine, parts.thread), "memory")

    async def _watch_memory(self, engine: UpdaterEngine, thread: EngineThread) -> None:
        while True:
            self.metrics.note_memory(await thread(engine.memory_report))
            self.metrics.note_not_finite(engine.not_finite)
            await asyncio.sleep(_MEMORY_INTERVAL_S)


class _End:
    """When and why a run ends.

    Attributes:
        event: set when it has to.
        bundle: that the next run has; None if the program ends.
    """

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.bundle: GraphPart | None = None

    async def with_program(self, stopping: asyncio.Event) -> None:
        """Ends the run with the program."""
        await stopping.wait()
        self.event.set()
