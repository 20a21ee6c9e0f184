"""The worker's metrics and the one log line per request."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import structlog

from runtime.clock import Clock
from runtime.observability.telemetry import Metrics
from worker.engine.records import GRAPH, MADE_BY, EngineCounters
from worker.jobs import Job
from worker.publishing import status_of, step_times
from worker.settings import WorkerSection

BUDGET_SHARES: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 5.0)
log = structlog.get_logger(__name__)


class WorkerMetrics(Metrics):
    """What a worker tells about itself; names begin with `exitstream_worker_`."""

    def __init__(self) -> None:
        super().__init__("worker")
        self._requests = self.counter("requests_total", "Requests answered", ("status",))
        self._candidates = self.counter("candidates_total", "Candidates scored", ("made_by", "exit_layer"))
        self._latency = self.histogram("latency_seconds", "From a request's created time until it was scored")
        self._lateness = self.histogram("lateness_seconds", "By how much late answers were late when scored")
        self._budget_share = self.histogram("budget_share", "Latency as a share of the budget", buckets=BUDGET_SHARES)
        self._steps = self.histogram("step_seconds", "Time of one request per step", ("step",))
        self._token_layers_run = self.counter("token_layers_run_total", "Tokens times layers executed")
        self._token_layers_full = self.counter("token_layers_full_total", "The same without early exits")
        self._engine_seconds = self.counter("engine_seconds_total", "Time in the engine's steps", ("part",))
        self._prefix_lookups = self.counter("prefix_cache_lookups_total", "Prefixes looked for", ("outcome",))
        self.embedding_age = self.histogram("embedding_age_seconds", "Age of the newest event an answer knew of")
        self.freshness = self.histogram("freshness_seconds", "From an event until its effect could be served")
        self.states = self.counter("states_total", "States taken into the tables", ("topic",))
        self.refused_states = self.counter("refused_states_total", "States that no table could take", ("topic",))
        self.clock_clamps = self.counter("clock_clamps_total", "Created times that were not believed", ("skew",))
        self.internal_errors = self.counter("internal_errors_total", "Requests answered from the graph for a fault")
        self.threshold = self.gauge("exit_threshold", "The exit threshold in force")
        self.waiting = self.gauge("waiting_parts", "Parts of requests that wait for the engine")
        self.in_flight = self.gauge("in_flight_requests", "Requests taken in and not yet answered")
        self.paused = self.gauge("paused_partitions", "Partitions whose reading rests")
        self.entries = self.gauge("table_entries", "Entries in the tables", ("kind",))
        self.recall = self.gauge("search_recall", "Share of true neighbours found", ("kind",))

    def note_answer(self, job: Job) -> None:
        """Counts one answered request."""
        lateness_ms = (job.scored_s - job.deadline.at) * 1000
        latency_s = job.deadline.transit_ms / 1000 + job.scored_s - job.deadline.intake
        self._requests.labels(status_of(job, lateness_ms)).inc()
        self._latency.observe(latency_s)
        if lateness_ms > 0:
            self._lateness.observe(lateness_ms / 1000)
        if job.budget_s > 0:
            self._budget_share.observe(latency_s / job.budget_s)
        for (made_by, exit_layer), count in Counter(
            zip(job.made_by.tolist(), job.exit_layer.tolist(), strict=True)
        ).items():
            self._candidates.labels(MADE_BY[made_by], exit_layer).inc(count)
        if job.embedding_time_ms is not None:
            self.embedding_age.observe(max(0.0, (job.scored_time_ms - job.embedding_time_ms) / 1000))
        self._note_steps(job)

    def note_engine(self, before: EngineCounters, now: EngineCounters) -> None:
        """Counts what the engine has done between two looks at its counters."""
        model_s = now.model_s - before.model_s
        self._engine_seconds.labels("model").inc(model_s)
        self._engine_seconds.labels("around").inc(max(0.0, now.step_s - before.step_s - model_s))
        self._prefix_lookups.labels("hit").inc(now.prefix_hits - before.prefix_hits)
        self._prefix_lookups.labels("miss").inc(now.prefix_misses - before.prefix_misses)

    def _note_steps(self, job: Job) -> None:
        times = step_times(job)
        self._steps.labels("queue").observe(times.queue_ms / 1000)
        if job.begun_s is not None:
            self._steps.labels("retrieve").observe(job.retrieve_s)
            self._steps.labels("prompt").observe(job.prompt_s)
            self._steps.labels("infer").observe(job.infer_s)
        self._token_layers_run.inc(job.token_layers_run)
        self._token_layers_full.inc(job.token_layers_full)


class RequestLog:
    """One canonical line per request; at high rates a part of them, each saying how many went unwritten before it.

    Args:
        settings: level and rate.
        clock: for the rate.
    """

    def __init__(self, settings: WorkerSection, clock: Clock) -> None:
        self._level = settings.request_log
        self._per_s = settings.request_log_per_s
        self._clock = clock
        self._second = -1
        self._written = 0
        self._unwritten = 0

    def write(self, job: Job) -> None:
        """The line of an answered request, unless too many have been written in this second."""
        if self._level == "off":
            return
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second, self._written = second, 0
        if self._written >= self._per_s:
            self._unwritten += 1
            return
        self._written += 1
        fields = request_line(job)
        if self._unwritten:
            fields["unwritten_before"] = self._unwritten
            self._unwritten = 0
        (log.info if self._level == "info" else log.debug)("request", **fields)


def request_line(job: Job) -> dict[str, Any]:
    """Everything worth knowing about one answered request."""
    lateness_ms = (job.scored_s - job.deadline.at) * 1000
    times = step_times(job)
    made_by = Counter(MADE_BY[code] for code in job.made_by.tolist())
    reached = job.made_by != GRAPH
    return {
        "request_id": job.request.request_id,
        "user_id": job.request.user_id,
        "place": str(job.record),
        "status": status_of(job, lateness_ms),
        "candidates": len(job.item_ids),
        "budget_ms": round(job.budget_s * 1000),
        "latency_ms": round(times.transit_ms + (job.scored_s - job.deadline.intake) * 1000, 1),
        "lateness_ms": round(max(0.0, lateness_ms), 1),
        **{
            name: round(getattr(times, name), 1)
            for name in ("transit_ms", "queue_ms", "retrieve_ms", "prompt_ms", "infer_ms")
        },
        "made_by": dict(made_by),
        "mean_exit_layer": round(float(job.exit_layer[reached].mean()), 2) if reached.any() else 0.0,
        "threshold": round(job.threshold, 4),
        "embedding_version": job.embedding_version,
    }
