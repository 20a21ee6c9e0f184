"""The worker's own pipeline around a model that answers at once, for `benchmarks.pipeline`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from programs.topics import TopicSettings
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from runtime.delivery import Admission, make_delivery
from runtime.kafka import RecordSource
from runtime.process.lifecycle import owned_tasks
from runtime.records import Record
from runtime.settings import KafkaSettings
from schemas.messages import ImpressionRequest
from worker.compute import ComputeThread
from worker.engine.engine import ScoringEngine
from worker.engine.scoring_job import CONFIDENT
from worker.engine.timeline import Interval, StageRun
from worker.job import Job
from worker.metrics import WorkerMetrics
from worker.model import ServingModel
from worker.observers import Observers
from worker.pipeline import Pipeline
from worker.publishing import Publisher
from worker.reading import Reading
from worker.serving import Serving
from worker.settings import WorkerSection, WorkerSettings
from worker.tracing import RequestTracing

if TYPE_CHECKING:
    from runtime.observability.spans import Tracer

VERSION: Final = "stub"
RATE: Final = 0.123456789
EXIT_LAYERS: Final = (2, 4, 6)
DRAIN_S: Final = 60.0
BUDGET_MS: Final = 3_600_000
"""The requests' and the worker's: none is late, and none is old enough to be read as a backlog."""


class StubEngine:
    """In place of retrieval, prompt and transformer: every candidate of every request has the same rate at once.

    Args:
        monotonic: the clock of deadlines, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._waiting: list[Job] = []
        self.exit_layers = EXIT_LAYERS

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self._waiting)

    def enqueue(self, job: Job) -> None:
        """Takes in a request."""
        self._waiting.append(job)

    def step(self, _: object, margin_s: float = 0.0) -> Sequence[Job]:  # noqa: ARG002 - as `ScoringEngine.step`
        """Answers everything that waits."""
        answered, self._waiting = self._waiting, []
        now_s = self._monotonic()
        for job in answered:
            answer(job, now_s)
        return answered


def answer(job: Job, now_s: float) -> None:
    """Gives a request its scores."""
    job.begun_s = job.scored_s = now_s
    job.threshold = 0.5
    job.answer(np.arange(len(job)), RATE, 2, RATE, CONFIDENT)
    if job.timeline is not None:  # as many steps as a real one has
        step, places = Interval(now_s, now_s), np.arange(len(job))
        job.timeline.retrievals.append(step)
        job.timeline.prompts.append(step)
        job.timeline.stages += [StageRun(stage, step, places, 1) for stage in range(len(EXIT_LAYERS))]


def stub_model(monotonic: Callable[[], float]) -> ServingModel:
    """A model of nothing but the stub engine, which needs no tables."""
    nothing: Any = None
    engine = cast("ScoringEngine[Job]", StubEngine(monotonic))
    return ServingModel(
        VERSION,
        tables=nothing,
        retriever=nothing,
        prompts=nothing,
        engine=engine,
        graph=nothing,
        text=nothing,
        calibration=nothing,
    )


def example_scores(request: ImpressionRequest) -> bytes:
    """The bytes that the pipeline writes for a request, but for its times."""
    clock, settings = SystemClock(), WorkerSettings()
    deadline = Deadline.at_intake(created_time_ms=request.created_time_ms, budget_ms=0, clock=clock)
    job = Job(Record(settings.topics.impression_requests, 0, 0, b"", b""), request, deadline, 0.0)
    answer(job, clock.monotonic())
    job.model_version = VERSION
    publisher = Publisher(settings.topics.ctr_scores, settings.worker.answer_format, settings.worker.neighbours)
    return publisher.record(job).value or b""


async def run(
    kafka: KafkaSettings, topics: TopicSettings, group: str, records: int, _: bytes, tracer: Tracer | None = None
) -> float:
    """Answers so many requests as a new group; the seconds from the assignment to the last commit.

    Everything is wired as in `worker.service`.
    """
    worker = WorkerSection(group_id=group, budget_ms=BUDGET_MS)
    settings = WorkerSettings(kafka=kafka, topics=topics, worker=worker)
    clock = SystemClock()
    source = RecordSource(kafka, [topics.impression_requests], group)
    async with owned_tasks() as spawn:
        thread = ComputeThread()
        spawn(thread.run(), "compute")
        async with make_delivery(kafka, source) as delivery:
            serving = Serving(stub_model(clock.monotonic), clock)
            observers = Observers(tracing=RequestTracing(tracer, settings, clock) if tracer is not None else None)
            pipeline = Pipeline(settings, serving, thread, delivery, WorkerMetrics(), clock, observers)
            thread.work = pipeline.infer
            spawn(pipeline.publish_all(), "scores")
            spawn(delivery.run(), "commits")
            reading, admission = Reading(settings, source, delivery, clock), Admission(source, delivery)
            await source.start(delivery, reading.backlog)
            started_s = time.perf_counter()
            try:
                read = 0
                while read < records:
                    polled = await reading.poll()
                    async for _handling, portion in admission.admit(polled):
                        for record in portion:
                            await pipeline.accept(record)
                    read += len(polled)
                if not await delivery.drain(DRAIN_S):
                    raise TimeoutError(f"{delivery.in_flight()} records are left after {DRAIN_S:.0f} s")
                return time.perf_counter() - started_s
            finally:
                await source.stop()
                await reading.stop()
