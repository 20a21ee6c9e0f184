"""The worker's metrics and the one log line per request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

import numpy as np
import structlog

from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.observability.telemetry import Metrics
from worker.engine.counters import EngineCounters
from worker.engine.scoring_job import GRAPH, MADE_BY
from worker.job import Job
from worker.outcomes.metrics import OutcomeMetrics
from worker.settings import WorkerSection
from worker.state_store.tables import Tables

BUDGET_SHARES: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 5.0)
log = structlog.get_logger(__name__)


class WorkerMetrics(Metrics):
    """A worker's metrics; their names begin with `exitstream_worker_`."""

    def __init__(self) -> None:
        super().__init__("worker")
        # For each labelled child the library makes strings of the labels and takes a lock; there are few, so keep them.
        self._requests_of = cache(self.counter("requests_total", "Requests answered", ("status",)).labels)
        self._candidates_of = cache(
            self.counter("candidates_total", "Candidates scored", ("made_by", "exit_layer")).labels
        )
        self._latency = self.histogram("latency_seconds", "From a request's created time until it was scored")
        self._lateness = self.histogram("lateness_seconds", "By how much late answers were late when scored")
        self._budget_share = self.histogram("budget_share", "Latency as a share of the budget", buckets=BUDGET_SHARES)
        self._steps = self.histogram("step_seconds", "Time of one request per step", ("step",))
        self._token_layers_run = self.counter("token_layers_run_total", "Tokens times layers executed")
        self._token_layers_full = self.counter("token_layers_full_total", "The same without early exits")
        self._engine_seconds = self.counter("engine_seconds_total", "Time in the engine's steps", ("part",))
        self._prefix_lookups = self.counter("prefix_cache_lookups_total", "Prefixes looked for", ("outcome",))
        self._prefix_bytes = self.gauge("prefix_cache_bytes", "Memory held by keys and values of earlier prefixes")
        self.embedding_age = self.histogram("embedding_age_seconds", "Age of the newest event an answer knew of")
        self.freshness = self.histogram("freshness_seconds", "From an event until its effect could be served")
        self.states = self.counter("states_total", "States taken into the tables", ("topic",))
        self.refused_states = self.counter("refused_states_total", "States that no table could take", ("topic",))
        self.foreign_keys = self.counter(
            "foreign_keys_total", "Requests answered although their key is not their user's id"
        )
        self.misplaced_requests = self.counter(
            "misplaced_requests_total", "Requests in another partition than their user's state, which is not held here"
        )
        self.awaited_states = self.counter(
            "awaited_states_total", "Requests that waited for their user's states to be read", ("outcome",)
        )
        self.user_partitions = self.gauge("user_partitions", "Partitions of users by what they are here", ("kind",))
        self._clock_clamps = self.counter("clock_clamps_total", "Created times that were not believed", ("skew",))
        self._internal_errors = self.counter(
            "internal_errors_total", "Faults that cost parts of requests their heads, or the graph's rate"
        )
        self._engine = self._counted = EngineCounters()
        self.threshold = self.gauge("exit_threshold", "The exit threshold in force")
        self.waiting = self.gauge("waiting_parts", "Parts of requests that wait to be prepared")
        self._serving = self.gauge("serving_model", "1 for the model that new requests get", ("model_version",))
        self.bundles_refused = self.counter("refused_bundles_total", "Newer versions of the bundle that cannot be used")
        self.in_flight = self.gauge("in_flight_requests", "Requests accepted and not yet answered")
        self.given_up = self.gauge("given_up_requests", "Requests whose answer the broker refused in every form")
        self.paused = self.gauge("paused_partitions", "Partitions whose reading is paused")
        self._index_failures = self.counter(
            "index_failures_total", "Trainings and updates of search indexes that failed", ("step",)
        )
        self._tables: Tables | None = None
        self._counted_failures: Counter[str] = Counter()
        self._entries = self.gauge("table_entries", "Entries in the tables", ("kind",))
        self._foreign = self.gauge(
            "foreign_embeddings", "Items and users whose latest embedding was made with another bundle's graph"
        )
        self._recall = self.gauge("search_recall", "Share of true neighbours found", ("kind",))
        self.outcomes = OutcomeMetrics(self)

    def note_answers(self, jobs: Sequence[Job]) -> None:
        """Counts answered requests; together, because the library's counters take a lock each time."""
        if not jobs:
            return
        for job in jobs:
            self._observe(job)
        for status, count in Counter(job.status for job in jobs).items():
            self._requests_of(status).inc(count)
        exit_layers = np.concatenate([job.exit_layer for job in jobs])
        made_by = np.concatenate([job.made_by for job in jobs])
        counts = np.bincount(exit_layers * len(MADE_BY) + made_by)
        for code in counts.nonzero()[0].tolist():
            exit_layer, made = divmod(code, len(MADE_BY))
            self._candidates_of(MADE_BY[made], exit_layer).inc(int(counts[code]))
        self._token_layers_run.inc(sum(job.token_layers_run for job in jobs))
        self._token_layers_full.inc(sum(job.token_layers_full for job in jobs))

    def lag_of(self, request_topic: str) -> tuple[int, int]:
        """Records not read yet: of the requests' topic, and of all others."""
        [family] = self.consumer_lag.collect()
        lags = [(sample.labels["topic"] == request_topic, sample.value) for sample in family.samples]
        requests = sum(lag for of_requests, lag in lags if of_requests)
        return int(requests), int(sum(lag for _, lag in lags) - requests)

    def note_deadline(self, deadline: Deadline) -> None:
        """Counts created times that were not believed."""
        if deadline.skew != "none":
            self._clock_clamps.labels(deadline.skew).inc()

    def note_model(self, model_version: str) -> None:
        """Shows which model serves."""
        self._serving.clear()
        self._serving.labels(model_version).set(1)

    def note_engine(self, counters: EngineCounters) -> None:
        """Counts what the engine has done since the last call."""
        if counters is not self._engine:  # another model serves: its engine has counted from zero
            self._engine, self._counted = counters, EngineCounters()
        before, now = self._counted, replace(counters)
        self._counted = now
        model_s = now.model_s - before.model_s
        self._engine_seconds.labels("model").inc(model_s)
        self._engine_seconds.labels("around").inc(max(0.0, now.step_s - before.step_s - model_s))
        self._prefix_lookups.labels("hit").inc(now.prefix_hits - before.prefix_hits)
        self._prefix_lookups.labels("partial").inc(now.prefix_partial_hits - before.prefix_partial_hits)
        self._prefix_lookups.labels("miss").inc(now.prefix_misses - before.prefix_misses)
        self._prefix_bytes.set(now.prefix_bytes)
        self._internal_errors.inc(now.faults - before.faults)

    def note_tables(self, tables: Tables) -> None:
        """Sizes of the tables, the quality of their search, and what failed in keeping it up."""
        if tables is not self._tables:
            self._tables, self._counted_failures = tables, Counter()
        for kind, ids, index in (
            ("item", tables.items.ids, tables.item_index),
            ("user", tables.users.ids, tables.user_index),
        ):
            self._entries.labels(kind).set(len(ids))
            self._recall.labels(kind).set(index.recall)
        self._foreign.set(tables.foreign_embeddings())
        for step, retries in (
            ("refresh", tables.refreshing),
            ("train items", tables.item_index.training),
            ("train users", tables.user_index.training),
        ):
            failures = retries.failures
            self._index_failures.labels(step).inc(failures - self._counted_failures[step])
            self._counted_failures[step] = failures

    def _observe(self, job: Job) -> None:
        latency_s, lateness_ms, age_ms = job.latency_s, job.lateness_ms, job.embedding_age_ms
        self._latency.observe(latency_s)
        if lateness_ms > 0:
            self._lateness.observe(lateness_ms / 1000)
        if job.budget_s > 0:
            self._budget_share.observe(latency_s / job.budget_s)
        if age_ms is not None:
            self.embedding_age.observe(age_ms / 1000)
        self._steps.labels("queue").observe(job.queue_s)
        if job.begun_s is not None:
            self._steps.labels("retrieve").observe(job.retrieve_s)
            self._steps.labels("prompt").observe(job.prompt_s)
            self._steps.labels("infer").observe(job.infer_s)


class RequestLog:
    """One log line per request; at high rates only some, each with the number of lines left out before it.

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
        """Writes the line of an answered request, unless too many have been written in this second."""
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
    times = job.step_times
    made_by = Counter(MADE_BY[code] for code in job.made_by.tolist())
    reached = job.made_by != GRAPH
    return {
        "request_id": job.request.request_id,
        "user_id": job.request.user_id,
        "place": str(job.record),
        "status": job.status,
        "candidates": len(job.item_ids),
        "budget_ms": round(job.budget_s * 1000),
        "latency_ms": round(job.latency_s * 1000, 1),
        "lateness_ms": round(job.lateness_ms, 1),
        **{
            name: round(getattr(times, name), 1)
            for name in ("transit_ms", "queue_ms", "retrieve_ms", "prompt_ms", "infer_ms")
        },
        "made_by": dict(made_by),
        "mean_exit_layer": round(float(job.exit_layer[reached].mean()), 2) if reached.any() else 0.0,
        "threshold": round(job.threshold, 4),
        "embedding_version": job.embedding_version,
        "user_state_read": job.user_state_read,
    }
