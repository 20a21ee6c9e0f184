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
from runtime.kafka import Backlog, RecordSource, TopicFollower
from runtime.observability.http_status import http_status
from runtime.observability.readiness import Readiness
from runtime.observability.watchdog import watch_progress
from runtime.process.lifecycle import Spawn, owned_tasks, watch_loop_lag
from worker.backpressure import hold_back
from worker.compute import ComputeThread
from worker.metrics import WorkerMetrics
from worker.model import ServingModel
from worker.pipeline import Pipeline
from worker.scoring import Scorer
from worker.settings import WorkerSettings
from worker.states import StateFeed, StateReader
from worker.tables import Tables

_GAUGE_INTERVAL_S: Final = 0.2
_SHARE_FOR_DRAINING: Final = 0.8
"""Of the time to end in; the rest is for leaving the group."""
_IDLE_POLL_MS: Final = 100
_BESIDE_POLL_MS: Final = 1
_BACKLOG_RECORDS: Final = 96
_BACKLOG_IN_FLIGHT: Final = 384
"""A backlog comes in small portions, and no more of it is in the works than keeps them busy: fresh requests must find
neither the compute thread nor the producer occupied for long.
"""
_RESTING_POLL_MS: Final = 5
"""While reading rests, polls only keep the place in the group and must not delay the end of the rest."""
log = structlog.get_logger(__name__)


class Service:
    """One worker process.

    Args:
        settings: everything that it can be told.
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
                tables = Tables(bundle.text, bundle.graph.dim, settings.worker.tables.limits(), executor)
                await self._follow_states(tables, thread, spawn, stopping)
                if stopping.is_set():
                    return
                scorer = await thread.call(lambda: self._scorer(bundle, tables))
                self.readiness.ready("model")
                await self._serve(scorer, thread, spawn, stopping)

    def _load(self) -> Bundle:
        """In the compute thread: torch keeps its number of threads per thread."""
        torch.set_num_threads(self._threads)
        faiss.omp_set_num_threads(self._threads)
        return Bundle.load(self._settings.worker.bundle)

    def _scorer(self, bundle: Bundle, tables: Tables) -> Scorer:
        tables.refresh_indexes()
        model = ServingModel.from_bundle(bundle, tables, self._settings.worker, self._clock.monotonic)
        # Libraries and tables are here to stay: left to the collector, looking through them stops everything for most
        # of a second, now and then.
        gc.collect()
        gc.freeze()
        return Scorer(self._settings, model, tables, self.metrics, self._clock)

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

    async def _serve(self, scorer: Scorer, thread: ComputeThread, spawn: Spawn, stopping: asyncio.Event) -> None:
        """Takes requests in until asked to stop; then finishes, delivers, commits and leaves."""
        settings = self._settings
        source = RecordSource(settings.kafka, [settings.topics.impression_requests], settings.worker.group_id)
        async with make_delivery(settings.kafka, source) as delivery:
            pipeline = Pipeline(settings, scorer, thread, delivery, self.metrics, self._clock)
            thread.work = pipeline.step
            spawn(pipeline.hand_out_all(), "scores")
            spawn(delivery.run(), "commits")
            spawn(self._keep_gauges(scorer, delivery), "gauges")
            backlog = self._backlog(delivery)
            await source.start(delivery, backlog)
            try:
                self.readiness.ready("group")
                log.info("ready", model_version=scorer.model.version, group=settings.worker.group_id)
                spawn(watch_progress(source, self._clock, settings.telemetry, self.readiness, self.metrics), "watchdog")
                await self._take_in(source, backlog, delivery, pipeline, stopping)
                self.readiness.wait_for("group", "draining")
                await delivery.drain(settings.telemetry.drain_limit_s * _SHARE_FOR_DRAINING)
            finally:
                await source.stop()
                if backlog is not None:
                    await backlog.stop()

    def _backlog(self, delivery: Delivery) -> Backlog | None:
        """What was written longer ago than a request's budget need not be read before what can still be in time.
        Transactions keep a partition's order, so with them it is.
        """
        settings = self._settings
        if not settings.worker.fresh_first or settings.kafka.delivery == "exactly_once":
            return None
        topics = [settings.topics.impression_requests]
        return Backlog(settings.kafka, topics, delivery, self._clock, older_than_ms=settings.worker.budget_ms)

    async def _take_in(
        self,
        source: RecordSource,
        backlog: Backlog | None,
        delivery: Delivery,
        pipeline: Pipeline,
        stopping: asyncio.Event,
    ) -> None:
        settings = self._settings.worker
        while not stopping.is_set():
            resting = hold_back(source, delivery, settings.max_in_flight)
            self.metrics.paused.set(resting)
            behind = backlog is not None and backlog.left
            timeout_ms = _BESIDE_POLL_MS if behind else _RESTING_POLL_MS if resting else _IDLE_POLL_MS
            records = await source.poll(max_records=settings.poll_records, timeout_ms=timeout_ms)
            if backlog is not None and behind and delivery.in_flight() < _BACKLOG_IN_FLIGHT:
                records += await backlog.poll(max_records=_BACKLOG_RECORDS, timeout_ms=_BESIDE_POLL_MS)
            for record in records:
                await pipeline.take_in(record)

    async def _keep_gauges(self, scorer: Scorer, delivery: Delivery) -> None:
        """What is read off now and then. The compute thread owns these; a number that is a moment old does no harm."""
        while True:
            self.metrics.threshold.set(scorer.model.controller.threshold)
            self.metrics.waiting.set(scorer.waiting)
            self.metrics.in_flight.set(delivery.in_flight())
            scorer.note_state()
            await asyncio.sleep(_GAUGE_INTERVAL_S)
