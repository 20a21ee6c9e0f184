"""The live page: once a second it counts, and tells all viewers the same.

The status port serves it (`worker.live.site`). Until the model serves there is nothing to tell.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
import structlog

from runtime.clock import Clock
from runtime.observability.readiness import Readiness
from worker.compute import ComputeThread
from worker.job import Job
from worker.live.figures import Figures, Gauges, LiveFigures, Point
from worker.live.typed import MOST_CANDIDATES, TypedRequests
from worker.live.viewers import Viewers
from worker.live.words import AnsweredRequest, InWords
from worker.metrics import WorkerMetrics
from worker.model import ServingModel
from worker.outcomes.live import LiveOutcomes
from worker.outcomes.quality import OutcomeFigures
from worker.serving import Serving
from worker.settings import WorkerSettings

INTERVAL_S: Final = 1.0
SAMPLES: Final = 8
log = structlog.get_logger(__name__)


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a viewer is told first."""

    model_version: str
    group_id: str
    exit_layers: Sequence[int]
    base_threshold: float
    budget_ms: int
    most_candidates: int
    outcome_wait_s: float
    least_outcomes: int
    points: Sequence[Point]
    samples: Sequence[AnsweredRequest]
    """Oldest first."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What all viewers are told each second."""

    figures: Figures
    outcomes: OutcomeFigures
    not_ready: Mapping[str, str]
    sample: AnsweredRequest | None
    """One of the requests answered in this second."""


class LivePage:
    """Counts, and answers typed requests, once there is a model.

    Args:
        settings: of the worker.
        metrics: where lag and freshness stand.
        readiness: of the worker.
        clock: the time.

    Attributes:
        figures: where answered requests are noted.
        viewers: who looks at the page.
        typed: answers typed requests; None until there is a model.
    """

    def __init__(self, settings: WorkerSettings, metrics: WorkerMetrics, readiness: Readiness, clock: Clock) -> None:
        self._settings = settings
        self._metrics = metrics
        self._readiness = readiness
        self._clock = clock
        self._model: ServingModel | None = None
        self._samples: deque[AnsweredRequest] = deque(maxlen=SAMPLES)
        self.figures = LiveFigures(clock.monotonic())
        self.viewers = Viewers()
        self.typed: TypedRequests | None = None

    def start(self) -> Start | None:
        """What a viewer is told first; None until there is a model."""
        model = self._model
        if model is None:
            return None
        chosen = self._settings.worker.controller.base_threshold
        return Start(
            model_version=model.version,
            group_id=self._settings.group,
            exit_layers=model.engine.exit_layers,
            base_threshold=model.calibration.base_threshold if chosen is None else chosen,
            budget_ms=self._settings.worker.budget_ms,
            most_candidates=MOST_CANDIDATES,
            outcome_wait_s=self._settings.worker.outcomes.wait_s,
            least_outcomes=self._settings.worker.outcomes.least,
            points=list(self.figures.history),
            samples=list(self._samples),
        )

    @property
    def model_version(self) -> str:
        """Of the model that viewers see; empty until there is one."""
        return "" if self._model is None else self._model.version

    async def run(
        self, serving: Serving, thread: ComputeThread, in_flight: Callable[[], int], outcomes: LiveOutcomes
    ) -> None:
        """Counts every second until cancelled; without viewers it does no more than that.

        Args:
            serving: the model at work.
            thread: its thread.
            in_flight: how many requests are accepted and not yet answered.
            outcomes: what became of the scores.
        """
        words = self._show(serving.model, thread)
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                if serving.model is not self._model:
                    words = self._show(serving.model, thread)
                latest = self.figures.latest
                figures = self._count(serving.model, in_flight())
                if self.viewers:
                    self._tell(figures, outcomes.figures, await self._in_words(latest, words, thread))
            except Exception:  # a page is never worth a worker
                log.exception("a second could not be told on the live page")

    async def _in_words(self, job: Job | None, words: InWords, thread: ComputeThread) -> AnsweredRequest | None:
        """An answered request, unless a model answered it that serves no more: its evidence is of other tables."""
        if job is None or job.model_version != self.model_version:
            return None
        return await thread.call(partial(words.answered, job))

    def _show(self, model: ServingModel, thread: ComputeThread) -> InWords:
        """The requests shown so far are another model's, if there was one."""
        self._model = model
        self._samples.clear()
        self.typed = TypedRequests(model, thread, self._clock)
        return InWords(model)

    def _count(self, model: ServingModel, in_flight: int) -> Figures:
        topic = self._settings.topics.impression_requests
        request_lag, state_lag = self._metrics.lag_of(topic)
        gauges = Gauges(
            threshold=model.engine.controller.threshold,
            waiting=model.engine.waiting,
            in_flight=in_flight,
            request_lag=request_lag,
            state_lag=state_lag,
        )
        buckets, _ = self._metrics.freshness.labels().buckets()
        freshness_s = {float(bound): count for bound, count in buckets}
        return self.figures.tick(self._clock.monotonic(), self._clock.wall_ms(), gauges, freshness_s)

    def _tell(self, figures: Figures, outcomes: OutcomeFigures, sample: AnsweredRequest | None) -> None:
        if sample is not None:
            self._samples.append(sample)
        not_ready = self._readiness.reasons()
        snapshot = Snapshot(figures=figures, outcomes=outcomes, not_ready=not_ready, sample=sample)
        self.viewers.publish(msgspec.json.encode(snapshot))
