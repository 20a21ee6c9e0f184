"""The trace of one request: `score request`, from its arrival until its scores are written, and the steps inside it.

Whether a request is traced is decided when it arrives. Only then is a timeline kept for it. Its spans are made once the
scores are written, which nobody waits for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec

import structlog

from runtime.clock import Clock
from runtime.observability.trace_context import trace_context
from worker.engine.scoring_job import GRAPH, MADE_BY
from worker.engine.timeline import Interval, StageRun, Timeline
from worker.job import Job
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from runtime.observability.spans import Attributes, Span, Tracer

ROOT: Final = "score request"
P = ParamSpec("P")
log = structlog.get_logger(__name__)


def _harmless(
    method: Callable[Concatenate[RequestTracing, P], None],
) -> Callable[Concatenate[RequestTracing, P], None]:
    """No fault of a trace may cost a request its scores."""

    @wraps(method)
    def harmless(self: RequestTracing, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:
            log.exception("a trace could not be made")

    return harmless


class RequestTracing:
    """Makes the spans of requests.

    Args:
        tracer: begins them.
        settings: topics and group, for the attributes.
        clock: of the requests' times.
    """

    def __init__(self, tracer: Tracer, settings: WorkerSettings, clock: Clock) -> None:
        self._tracer = tracer
        self._group_id = settings.group
        self._scores_topic = settings.scores_topic
        self._clock = clock

    @_harmless
    def begin(self, job: Job) -> None:
        """Decides whether a request that has just arrived is traced. Its scores will tell their readers the trace."""
        job.trace_headers = trace_context(job.record.headers)
        job.trace = self._tracer.start(
            ROOT, job.trace_headers, job.wall_ms_at(job.deadline.intake), self._request_attributes(job)
        )
        if job.trace is not None:
            job.trace_headers = job.trace.headers
            job.timeline = Timeline()

    @_harmless
    def end(self, job: Job) -> None:
        """Makes the spans of a request whose scores have just been written."""
        if job.trace is None:
            return
        trace, job.trace = job.trace, None
        now_ms = job.wall_ms_at(self._clock.monotonic())
        self._add_steps(trace, job)
        published = {
            "messaging.system": "kafka",
            "messaging.operation.type": "send",
            "messaging.destination.name": self._scores_topic,
        }
        trace.child("publish", job.wall_ms_at(job.scored_s), now_ms, published, "producer")
        trace.end(now_ms, _answer_attributes(job))

    @_harmless
    def fail(self, job: Job, reason: str) -> None:
        """Makes the spans of a request that ends as a dead letter."""
        if job.trace is None:
            return
        trace, job.trace = job.trace, None
        self._add_steps(trace, job)
        trace.end(job.wall_ms_at(self._clock.monotonic()), _answer_attributes(job), error=reason)

    def _request_attributes(self, job: Job) -> Attributes:
        record = job.record
        return {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.destination.name": record.topic,
            "messaging.destination.partition.id": str(record.partition),
            "messaging.consumer.group.name": self._group_id,
            "messaging.kafka.offset": record.offset,
            "exitstream.request_id": job.request.request_id,
            "exitstream.candidates": len(job),
            "exitstream.budget_ms": job.budget_s * 1000,
            "exitstream.transit_ms": job.deadline.transit_ms,
        }

    def _add_steps(self, trace: Span, job: Job) -> None:
        timeline = job.timeline or Timeline()

        def add(name: str, step: Interval, attributes: Attributes | None = None) -> None:
            trace.child(name, job.wall_ms_at(step.start_s), job.wall_ms_at(step.end_s), attributes)

        add("queue", Interval(job.deadline.intake, job.deadline.intake + job.queue_s))
        for retrieval in timeline.retrievals:
            add("retrieve", retrieval)
        for prompt in timeline.prompts:
            add("prompt", prompt)
        for run in timeline.stages:
            add(f"stage {run.stage + 1}", run.ran, _stage_attributes(run, job))


def _stage_attributes(run: StageRun, job: Job) -> Attributes:
    """What a stage was and did. Only what left at its head has its last layer for an exit layer."""
    last_layer = job.exit_layers[run.stage]
    return {
        "exitstream.layers.first": job.exit_layers[run.stage - 1] + 1 if run.stage else 1,
        "exitstream.layers.last": last_layer,
        "exitstream.candidates": len(run.places),
        "exitstream.tokens": run.tokens,
        "exitstream.exits": int((job.exit_layer[run.places] == last_layer).sum()),
    }


def _answer_attributes(job: Job) -> Attributes:
    """What became of a request; how many candidates left at each layer, and how many the graph answered."""
    exits = Counter(job.exit_layer[job.made_by != GRAPH].tolist())
    made_by = Counter(MADE_BY[code] for code in job.made_by.tolist())
    return {
        "exitstream.model_version": job.model_version,
        "exitstream.status": job.status,
        "exitstream.exit_threshold": job.threshold,
        "exitstream.lateness_ms": job.lateness_ms,
        "exitstream.embedding_version": job.embedding_version,
        "exitstream.user_state_read": job.user_state_read,
        **{f"exitstream.exits.layer_{layer}": count for layer, count in sorted(exits.items())},
        **{f"exitstream.made_by.{made}": count for made, count in made_by.items()},
    }
