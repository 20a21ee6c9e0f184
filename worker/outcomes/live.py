"""Live quality of a worker: what it published, what followed, and how good that was.

Owned by the event loop: answers are noted where they are published, histories learned where states come back from the
compute thread, and once a second what is due is judged. The compute thread has no part in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from runtime.clock import Clock
from schemas.messages import UserState
from worker.job import Job
from worker.metrics import WorkerMetrics
from worker.outcomes.quality import OutcomeFigures, OutcomeWindow
from worker.outcomes.settings import OutcomeSettings
from worker.outcomes.waiting import WaitingScores

INTERVAL_S: Final = 1.0
log = structlog.get_logger(__name__)


class LiveOutcomes:
    """Follows a worker's scores.

    Args:
        settings: how long and how many.
        metrics: where the figures are shown.
        model_version: of the model that serves.
        clock: the time.

    Attributes:
        figures: as of the last second.
    """

    def __init__(self, settings: OutcomeSettings, metrics: WorkerMetrics, model_version: str, clock: Clock) -> None:
        self._metrics = metrics
        self._model_version = model_version
        self._clock = clock
        self._waiting = WaitingScores(settings.wait_s, settings.most_waiting)
        self._window = OutcomeWindow(settings.window, settings.least)
        self.figures = OutcomeFigures(quality=self._window.quality(), waiting=0, settled=0, expired=0, skipped=0)

    def note(self, job: Job) -> None:
        """Takes in an answer that is being published."""
        self._waiting.note(job, self._clock.monotonic())

    def learn(self, users: Iterable[UserState]) -> None:
        """Takes in states of users."""
        for state in users:
            self._waiting.learn(state.user_id, state.recent)

    async def run(self) -> None:
        """Judges once a second until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                self.judge()
            except Exception:  # figures are never worth a worker
                log.exception("outcomes could not be judged")

    def judge(self) -> OutcomeFigures:
        """Judges what is due and renews the figures."""
        judged = self._waiting.judge(self._clock.monotonic())
        before = self.figures
        quality = before.quality
        if len(judged.ctr):
            self._window.add(judged)
            quality = self._window.quality()
        self.figures = OutcomeFigures(
            quality=quality,
            waiting=self._waiting.candidates,
            settled=before.settled + len(judged.ctr),
            expired=before.expired + judged.expired,
            skipped=self._waiting.skipped,
        )
        self._metrics.note_outcomes(self.figures, self._model_version)
        return self.figures
