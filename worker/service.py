"""A worker from its start to its end: fill the tables, warm up, join the group, serve, drain."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import faiss
import structlog
import torch

from models.bundle import Bundle
from models.bundle_store import current_version, resolve
from models.golden_check import check_golden
from runtime.clock import Clock, SystemClock
from runtime.delivery import Admission, Delivery, Handling, make_delivery
from runtime.kafka import RecordSource, TopicFollower
from runtime.observability.http_status import http_status
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness
from runtime.observability.watchdog import Watchdog
from runtime.process.lifecycle import Spawn, owned_tasks, watch_loop_lag
from worker.compute import ComputeThread
from worker.live.page import LivePage
from worker.live.site import LiveSite
from worker.metrics import WorkerMetrics
from worker.model import ServingModel
from worker.outcomes.live import LiveOutcomes
from worker.pipeline import Pipeline
from worker.reading import Reading
from worker.settings import WorkerSettings
from worker.state_feed import StateFeed
from worker.state_store.state_reader import StateReader
from worker.state_store.tables import Tables
from worker.tracing import RequestTracing

if TYPE_CHECKING:
    from runtime.observability.spans import Tracer

STATE_PROGRESS: Final = "state progress"
"""The readiness condition that holds unless the states stand still although there are new ones."""
BACKLOG_PROGRESS: Final = "backlog progress"
"""The readiness condition that holds unless old requests stand still although they are polled for."""
_GAUGE_INTERVAL_S: Final = 0.2
_SHARE_FOR_DRAINING: Final = 0.8
"""Share of the drain limit; the rest is for leaving the group."""
_SHARE_FOR_BACKLOG: Final = 0.6
"""Share of the time for draining in which old requests are still read."""
log = structlog.get_logger(__name__)


@asynccontextmanager
async def index_training() -> AsyncIterator[Executor]:
    """A thread that trains search indexes. The end of the block does not wait for it, which would block the event loop:
    nobody needs an index that is still being trained then.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix="index training")
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


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
            bundle = await thread.call(self._load)
            graph = bundle.graph
            tables = Tables(bundle.text, graph.dim, settings.worker.tables, training, space=bundle.space)
            outcomes = LiveOutcomes(settings.worker.outcomes, self.metrics, bundle.version, self._clock)
            await self._follow_states(tables, outcomes, thread, spawn, stopping)
            if stopping.is_set():
                return
            log.info("warming the model up", model_version=bundle.version)
            model = await thread.call(lambda: self._serving_model(bundle, tables))
            self.readiness.ready("model")
            await self._serve(model, outcomes, thread, spawn, stopping)

    def _load(self) -> Bundle:
        """In the compute thread: torch keeps its number of threads per thread."""
        torch.set_num_threads(self._threads)
        faiss.omp_set_num_threads(self._threads)
        address = self._settings.worker.bundle
        folder = resolve(address)
        log.info("loading the bundle", address=address, folder=str(folder), model_version=current_version(folder))
        bundle = Bundle.load(folder)
        check_golden(bundle)
        return bundle

    def _serving_model(self, bundle: Bundle, tables: Tables) -> ServingModel:
        tables.refresh_indexes()
        model = ServingModel.from_bundle(bundle, tables, self._settings.worker, self._clock.monotonic)
        # Libraries and tables stay for good. Without `freeze` the garbage collector goes through them again and again,
        # which stops everything for most of a second.
        gc.collect()
        gc.freeze()
        return model

    async def _follow_states(
        self, tables: Tables, outcomes: LiveOutcomes, thread: ComputeThread, spawn: Spawn, stopping: asyncio.Event
    ) -> None:
        """Fills the tables from the compacted topics, then keeps following them."""
        reader = StateReader(self._settings.topics, self._settings.kafka.max_record_bytes)
        follower = TopicFollower(self._settings.kafka, reader.topics, out_of_range="earliest", outages=self._outages)
        await follower.start()
        batch = self._settings.worker.tables.update_batch
        feed = StateFeed(follower, reader, tables, thread, self.metrics, outcomes, batch)
        spawn(feed.follow(self._clock, self.readiness), "states")
        spawn(self._watchdog.watch(follower, STATE_PROGRESS), "watchdog of the states")
        await feed.filled(stopping)

    async def _serve(
        self, model: ServingModel, outcomes: LiveOutcomes, thread: ComputeThread, spawn: Spawn, stopping: asyncio.Event
    ) -> None:
        """Accepts requests until asked to stop; then finishes, delivers, commits and leaves the group."""
        settings = self._settings
        topics, group = [settings.topics.impression_requests], settings.worker.group_id
        source = RecordSource(settings.kafka, topics, group, outages=self._outages)
        async with make_delivery(settings.kafka, source) as delivery:
            observers = [outcomes.note] if self._page is None else [outcomes.note, self._page.figures.note]
            tracing = self._request_tracing(model)
            pipeline = Pipeline(settings, model, thread, delivery, self.metrics, self._clock, observers, tracing)
            thread.work = pipeline.infer
            spawn(pipeline.publish_all(), "scores")
            spawn(delivery.run(), "commits")
            spawn(self._keep_gauges(model, delivery), "gauges")
            spawn(outcomes.run(), "outcomes")
            if self._page is not None:
                spawn(self._page.run(model, thread, delivery.in_flight, outcomes), "live page")
            reading = Reading(settings, source, delivery, self._clock)
            log.info("joining the group, waiting for partitions", group=group)
            await source.start(delivery, reading.backlog)
            try:
                self.readiness.ready("group")
                log.info("ready", model_version=model.version, group=settings.worker.group_id)
                spawn(self._watchdog.watch(source), "watchdog of the requests")
                if reading.backlog is not None:
                    backlog = self._watchdog.watch(reading.backlog, BACKLOG_PROGRESS, shows_lag=False)
                    spawn(backlog, "watchdog of the backlog")
                await self._accept(reading, Admission(source, delivery), pipeline, stopping)
                self.readiness.wait_for("group", "draining")
                await self._drain(reading, pipeline, delivery)
            finally:
                await source.stop()
                await reading.stop()

    def _request_tracing(self, model: ServingModel) -> RequestTracing | None:
        if self._tracer is None:
            return None
        return RequestTracing(self._tracer, self._settings, model.version, model.engine.exit_layers, self._clock)

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

    async def _keep_gauges(self, model: ServingModel, delivery: Delivery) -> None:
        """Reads off what the compute thread owns; a number that is a moment old does no harm."""
        while True:
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
