"""A worker from its start to its end: fill the tables, warm up, join the group, serve, drain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from runtime.clock import Clock, SystemClock
from runtime.delivery import Admission, Delivery, Handling, make_delivery
from runtime.kafka import RebalanceHooks, RecordSource, WarmAssignor
from runtime.observability.http_status import http_status
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness
from runtime.observability.stages import process_age_s, stage
from runtime.observability.watchdog import Watchdog
from runtime.process.lifecycle import Spawn, owned_tasks, watch_loop_lag
from worker.compute import ComputeThread
from worker.followed_tables import FollowedTables, TableMaker, index_training
from worker.live.page import LivePage
from worker.live.site import LiveSite
from worker.metrics import WorkerMetrics
from worker.model_loader import ModelLoader
from worker.observers import Observers
from worker.outcomes.live import LiveOutcomes
from worker.partition_checks import count_partitions
from worker.pipeline import Pipeline
from worker.reading import Reading
from worker.serving import Serving
from worker.settings import WorkerSettings
from worker.tracing import RequestTracing
from worker.user_partitions import PartitionHooks, UserPartitions

if TYPE_CHECKING:
    from runtime.observability.spans import Tracer

STATE_PROGRESS: Final = "state progress"
"""The readiness condition that holds unless the states stand still although there are new ones."""
BACKLOG_PROGRESS: Final = "backlog progress"
"""The readiness condition that holds unless old requests stand still although they are polled for."""
_USERS: Final = "users"
"""The readiness condition of workers that hold only the users of their own partitions."""
_GAUGE_INTERVAL_S: Final = 0.2
_SHARE_FOR_DRAINING: Final = 0.8
"""Share of the drain limit; the rest is for leaving the group."""
_SHARE_FOR_BACKLOG: Final = 0.6
"""Share of the time for draining in which old requests are still read."""
log = structlog.get_logger(__name__)


class Service:
    """One worker process.

    Args:
        settings: of the worker.
        threads: of torch and FAISS.
        clock: the time.
        tracer: of requests; None where traces are off.
    """

    def __init__(
        self, settings: WorkerSettings, threads: int, clock: Clock | None = None, tracer: Tracer | None = None
    ) -> None:
        self._settings = settings
        self._threads = threads
        self._clock = clock or SystemClock()
        self._tracer = tracer
        self.metrics = WorkerMetrics()
        self.readiness = Readiness(("tables", "model", "group"))
        self._outages = Outages(self.readiness, self._clock)
        self._watchdog = Watchdog(settings.telemetry, self.readiness, self._outages, self.metrics, self._clock)
        self._page = (
            LivePage(settings, self.metrics, self.readiness, self._clock) if settings.telemetry.live_page else None
        )

    async def main(self, stopping: asyncio.Event) -> None:
        """Serves until asked to stop, then finishes what it has.

        Raises:
            ExitstreamError: it cannot start or go on.
        """
        settings = self._settings
        add_pages = LiveSite(self._page, settings.telemetry).add_to if self._page is not None else None
        async with (
            http_status(settings.telemetry, self.readiness, self.metrics, add_pages),
            index_training() as training,
            owned_tasks() as spawn,
        ):
            spawn(watch_loop_lag(self.metrics.event_loop_lag.observe), "event loop lag")
            thread = ComputeThread()
            spawn(thread.run(), "compute")
            outcomes = LiveOutcomes(settings.worker.outcomes, self.metrics, self._clock)
            partitions = await self._user_partitions()
            tables = TableMaker(
                settings, thread, training, self.metrics, outcomes, self._outages, self._clock, partitions
            )
            loader = ModelLoader(self._threads, thread, tables, partial(self._keep, spawn), self._clock)
            serving = await loader.first(self.readiness, stopping)
            if serving is None:
                return
            self.readiness.ready("model")
            spawn(loader.follow(serving, stopping), "bundle")
            await self._serve(serving, outcomes, thread, spawn, stopping, partitions)
            await loader.save_tables()

    def _keep(self, spawn: Spawn, followed: FollowedTables) -> Sequence[asyncio.Task[None]]:
        """Watches over the tables that serve: the worker ends if they cannot be kept current."""
        watching = self._watchdog.watch(followed.follower, STATE_PROGRESS)
        tasks = [spawn(followed.keep(), "states"), spawn(watching, "watchdog of the states")]
        if followed.saver is not None:
            tasks.append(spawn(followed.saver.run(followed.feed.filled()), "saving of the tables"))
        return tasks

    async def _serve(
        self,
        serving: Serving,
        outcomes: LiveOutcomes,
        thread: ComputeThread,
        spawn: Spawn,
        stopping: asyncio.Event,
        partitions: UserPartitions | None,
    ) -> None:
        """Accepts requests until asked to stop; then finishes, delivers, commits and leaves the group."""
        settings = self._settings
        topics, group = [settings.topics.impression_requests], settings.group
        assignor = None if partitions is None else WarmAssignor(partitions.holding)
        source = RecordSource(
            settings.kafka,
            topics,
            group,
            start_from="latest" if settings.is_shadow else "earliest",  # old requests are nothing to compare
            out_of_range="latest" if settings.is_shadow else "earliest",
            outages=self._outages,
            assignor=assignor,
        )
        async with make_delivery(settings.kafka, source) as delivery:
            observers = self._observers(outcomes)
            pipeline = Pipeline(settings, serving, thread, delivery, self.metrics, self._clock, observers, partitions)
            hooks: RebalanceHooks = delivery
            if partitions is not None and assignor is not None and pipeline.awaiting is not None:
                count = partial(source.count, topics[0])
                hooks = PartitionHooks(delivery, partitions, assignor, source.assignment, count, pipeline.awaiting)
            thread.work = pipeline.infer
            spawn(pipeline.publish_all(), "scores")
            spawn(delivery.run(), "commits")
            spawn(self._keep_gauges(serving, delivery), "gauges")
            if partitions is not None:
                spawn(self._watch_partitions(partitions), "user partitions")
            spawn(outcomes.run(), "outcomes")
            if self._page is not None:
                spawn(self._page.run(serving, thread, delivery.in_flight, outcomes), "live page")
            reading = Reading(settings, source, delivery, self._clock)
            log.info("joining the group, waiting for partitions", group=group)
            with stage("group", self._clock):
                await source.start(hooks, reading.backlog)
            try:
                self.readiness.ready("group")
                spawn(self._announce(serving, partitions), "announcement")
                spawn(self._watchdog.watch(source), "watchdog of the requests")
                if reading.backlog is not None:
                    backlog = self._watchdog.watch(reading.backlog, BACKLOG_PROGRESS, shows_lag=False)
                    spawn(backlog, "watchdog of the backlog")
                await self._accept(reading, Admission(source, delivery), pipeline, stopping)
                self.readiness.wait_for("group", "draining")
                if pipeline.awaiting is not None:
                    pipeline.awaiting.close()
                await self._drain(reading, pipeline, delivery)
            finally:
                await source.stop()
                await reading.stop()

    def _observers(self, outcomes: LiveOutcomes) -> Observers:
        note = [outcomes.note] if self._page is None else [outcomes.note, self._page.figures.note]
        if self._tracer is None:
            return Observers(note)
        return Observers(note, RequestTracing(self._tracer, self._settings, self._clock))

    async def _accept(
        self, reading: Reading, admission: Admission, pipeline: Pipeline, stopping: asyncio.Event
    ) -> None:
        while not stopping.is_set():
            async for handling, records in admission.admit(await reading.poll()):
                begin = pipeline.condemn if handling is Handling.CONDEMNED else pipeline.accept
                for record in records:
                    await begin(record)
                if stopping.is_set():
                    break  # what has not begun is read again
            self.metrics.paused.set(reading.paused)

    async def _drain(self, reading: Reading, pipeline: Pipeline, delivery: Delivery) -> None:
        """Finishes what has been read, and as far as time allows also the old requests before it: only with these do
        fresh ones count as done, and would be answered again otherwise.
        """
        limit_s = self._settings.telemetry.drain_limit_s * _SHARE_FOR_DRAINING
        began_s = self._clock.monotonic()
        while reading.has_backlog and self._clock.monotonic() - began_s < limit_s * _SHARE_FOR_BACKLOG:
            for record in await reading.poll_backlog():
                await pipeline.accept(record)
        await delivery.drain(limit_s - (self._clock.monotonic() - began_s))

    async def _user_partitions(self) -> UserPartitions | None:
        """What is to be held of users; None: all.

        Raises:
            SettingsError: requests and users' states do not lie in partitions of the same number.
            BrokerError: the broker cannot be asked.
        """
        tables = self._settings.worker.tables
        if tables.users == "all":
            return None
        self.readiness.wait_for(_USERS, "waiting for the group's partitions")
        return UserPartitions(await count_partitions(self._settings), tables.standby_partitions)

    async def _announce(self, serving: Serving, partitions: UserPartitions | None) -> None:
        """Says once that everything has been read that answers need."""
        if partitions is not None:
            await partitions.all_read()
        version, group = serving.model.version, self._settings.group
        log.info("ready", model_version=version, group=group, seconds=round(process_age_s(), 3))

    async def _watch_partitions(self, partitions: UserPartitions) -> None:
        """Shows which users are held; a worker is ready when those of its own requests are."""
        while True:
            for kind, held in (
                ("assigned", partitions.assigned or ()),
                ("standby", partitions.standby),
                ("read", partitions.read),
            ):
                self.metrics.user_partitions.labels(kind).set(len(held))
            if awaited := partitions.awaited:
                self.readiness.wait_for(
                    _USERS, f"reading and indexing the users of partitions {', '.join(map(str, sorted(awaited)))}"
                )
            elif partitions.assigned is not None:
                self.readiness.ready(_USERS)
            await asyncio.sleep(_GAUGE_INTERVAL_S)

    async def _keep_gauges(self, serving: Serving, delivery: Delivery) -> None:
        """Reads off what the compute thread owns; a number that is a moment old does no harm."""
        while True:
            model = serving.model
            self.metrics.threshold.set(model.engine.controller.threshold)
            self.metrics.waiting.set(model.engine.waiting)
            self.metrics.in_flight.set(delivery.in_flight())
            self.metrics.given_up.set(delivery.given_up)
            self.metrics.note_engine(model.engine.counters)
            self.metrics.note_tables(model.tables)
            if (trouble := model.tables.search_trouble()) is None:
                self.readiness.ready("search")
            else:
                self.readiness.wait_for("search", trouble)
            await asyncio.sleep(_GAUGE_INTERVAL_S)
