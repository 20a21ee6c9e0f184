"""A worker from its start to its end: fill the tables, warm up, join the group, serve, drain."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import faiss
import structlog
import torch

from models.bundle import Bundle
from runtime.clock import Clock, SystemClock
from runtime.delivery import Delivery, make_delivery
from runtime.kafka import RecordSource, TopicFollower
from runtime.observability.http_status import http_status
from runtime.observability.readiness import Readiness
from runtime.observability.watchdog import watch_progress
from runtime.process.lifecycle import Spawn, owned_tasks, watch_loop_lag
from worker.compute import ComputeThread
from worker.metrics import WorkerMetrics
from worker.model import ServingModel
from worker.pipeline import Pipeline
from worker.reading import Reading
from worker.settings import WorkerSettings
from worker.state_feed import StateFeed
from worker.state_store.state_reader import StateReader
from worker.state_store.tables import Tables

_GAUGE_INTERVAL_S: Final = 0.2
_SHARE_FOR_DRAINING: Final = 0.8
"""Share of the drain limit; the rest is for leaving the group."""
log = structlog.get_logger(__name__)


class Service:
    """One worker process.

    Args:
        settings: of the worker.
        threads: of torch and FAISS.
        clock: the time.
    """

    def __init__(self, settings: WorkerSettings, threads: int, clock: Clock | None = None) -> None:
        self._settings = settings
        self._threads = threads
        self._clock = clock or SystemClock()
        self.metrics = WorkerMetrics()
        self.readiness = Readiness(("tables", "model", "group"))

    async def main(self, stopping: asyncio.Event) -> None:
        """Serves until asked to stop, then finishes what it has.

        Raises:
            ExitstreamError: it cannot start or go on.
        """
        settings = self._settings
        async with http_status(settings.telemetry, self.readiness, self.metrics), owned_tasks() as spawn:
            spawn(watch_loop_lag(self.metrics.event_loop_lag.observe), "event loop lag")
            thread = ComputeThread()
            spawn(thread.run(), "compute")
            bundle = await thread.call(self._load)
            with ThreadPoolExecutor(1, thread_name_prefix="index training") as executor:
                tables = Tables(bundle.text, bundle.graph.dim, settings.worker.tables, executor)
                await self._follow_states(tables, thread, spawn, stopping)
                if stopping.is_set():
                    return
                model = await thread.call(lambda: self._serving_model(bundle, tables))
                self.readiness.ready("model")
                await self._serve(model, thread, spawn, stopping)

    def _load(self) -> Bundle:
        """In the compute thread: torch keeps its number of threads per thread."""
        torch.set_num_threads(self._threads)
        faiss.omp_set_num_threads(self._threads)
        return Bundle.load(self._settings.worker.bundle)

    def _serving_model(self, bundle: Bundle, tables: Tables) -> ServingModel:
        tables.refresh_indexes()
        model = ServingModel.from_bundle(bundle, tables, self._settings.worker, self._clock.monotonic)
        # Libraries and tables stay for good. Without `freeze` the garbage collector goes through them again and again,
        # which stops everything for most of a second.
        gc.collect()
        gc.freeze()
        return model

    async def _follow_states(
        self, tables: Tables, thread: ComputeThread, spawn: Spawn, stopping: asyncio.Event
    ) -> None:
        """Fills the tables from the compacted topics, then keeps following them."""
        reader = StateReader(self._settings.topics, self._settings.kafka.max_record_bytes)
        follower = TopicFollower(self._settings.kafka, reader.topics, out_of_range="earliest")
        await follower.start()
        feed = StateFeed(follower, reader, tables, thread, self.metrics, self._settings.worker.tables.update_batch)
        spawn(feed.follow(self._clock, self.readiness), "states")
        await feed.filled(stopping)

    async def _serve(self, model: ServingModel, thread: ComputeThread, spawn: Spawn, stopping: asyncio.Event) -> None:
        """Accepts requests until asked to stop; then finishes, delivers, commits and leaves the group."""
        settings = self._settings
        source = RecordSource(settings.kafka, [settings.topics.impression_requests], settings.worker.group_id)
        async with make_delivery(settings.kafka, source) as delivery:
            pipeline = Pipeline(settings, model, thread, delivery, self.metrics, self._clock)
            thread.work = pipeline.infer
            spawn(pipeline.publish_all(), "scores")
            spawn(delivery.run(), "commits")
            spawn(self._keep_gauges(model, delivery), "gauges")
            reading = Reading(settings, source, delivery, self._clock)
            await source.start(delivery, reading.backlog)
            try:
                self.readiness.ready("group")
                log.info("ready", model_version=model.version, group=settings.worker.group_id)
                spawn(watch_progress(source, self._clock, settings.telemetry, self.readiness, self.metrics), "watchdog")
                await self._accept(reading, pipeline, stopping)
                self.readiness.wait_for("group", "draining")
                await delivery.drain(settings.telemetry.drain_limit_s * _SHARE_FOR_DRAINING)
            finally:
                await source.stop()
                await reading.stop()

    async def _accept(self, reading: Reading, pipeline: Pipeline, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            for record in await reading.poll():
                await pipeline.accept(record)
            self.metrics.paused.set(reading.paused)

    async def _keep_gauges(self, model: ServingModel, delivery: Delivery) -> None:
        """Reads off what the compute thread owns; a number that is a moment old does no harm."""
        while True:
            self.metrics.threshold.set(model.engine.controller.threshold)
            self.metrics.waiting.set(model.engine.waiting)
            self.metrics.in_flight.set(delivery.in_flight())
            self.metrics.note_engine(model.engine.counters)
            self.metrics.note_tables(model.tables)
            await asyncio.sleep(_GAUGE_INTERVAL_S)
