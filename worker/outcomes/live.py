"""Live quality of a worker: what it published, what followed, and how good that was.

Owned by the event loop: answers are noted where they are published, histories learned where states come back from the
compute thread, and once a second what is due is judged. The compute thread has no part in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import structlog

from runtime.clock import Clock
from schemas.codec import MalformedRecord
from schemas.packed_states import unpack_history
from worker.job import Job
from worker.metrics import WorkerMetrics
from worker.outcomes.quality import OutcomeFigures, OutcomeWindow, Quality
from worker.outcomes.settings import OutcomeSettings
from worker.outcomes.waiting import WaitingScores
from worker.state_store.state_reader import UserHistory

INTERVAL_S: Final = 1.0
log = structlog.get_logger(__name__)


class LiveOutcomes:
    """Follows a worker's scores, those of each model by themselves.

    Args:
        settings: how long and how many.
        metrics: where the figures are shown.
        clock: the time.

    Attributes:
        figures: as of the last second; their quality is that of the model that serves.
    """

    def __init__(self, settings: OutcomeSettings, metrics: WorkerMetrics, clock: Clock) -> None:
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._waiting = WaitingScores(settings.wait_s, settings.most_waiting)
        self._windows: dict[str, OutcomeWindow] = {}  # by model version
        self._qualities: dict[str, Quality] = {}
        self._serving = ""
        nothing = OutcomeWindow(settings.window, settings.least).quality()
        self.figures = OutcomeFigures(quality=nothing, waiting=0, settled=0, expired=0, skipped=0)

    def note(self, job: Job) -> None:
        """Takes in an answer that is being published."""
        if job.model_version != self._serving:
            self._serving = job.model_version
            self._begin(job.model_version)
        self._waiting.note(job, self._clock.monotonic())

    def learn(self, users: Iterable[UserHistory]) -> None:
        """Takes in states of users; those of users without a score that waits are not read."""
        for key, packed in users:
            user_id = key.decode()
            if self._waiting.awaits(user_id):
                with suppress(MalformedRecord):  # an id in it that no reader of many at once looks at
                    self._waiting.learn(user_id, unpack_history(packed))

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
        settled, expired = self.figures.settled, self.figures.expired
        for judged in self._waiting.judge(self._clock.monotonic()):
            settled += len(judged.ctr)
            expired += judged.expired
            if len(judged.ctr):
                self._windows[judged.model_version].add(judged)
                self._qualities[judged.model_version] = self._windows[judged.model_version].quality()
        self._forget_retired()
        self.figures = OutcomeFigures(
            quality=self._qualities.get(self._serving, self.figures.quality),
            waiting=self._waiting.candidates,
            settled=settled,
            expired=expired,
            skipped=self._waiting.skipped,
        )
        self._metrics.outcomes.note(self.figures, self._qualities)
        return self.figures

    def _begin(self, model_version: str) -> None:
        """Of a model that was at work before, the scores made then still count."""
        if model_version not in self._windows:
            window = OutcomeWindow(self._settings.window, self._settings.least)
            self._windows[model_version], self._qualities[model_version] = window, window.quality()

    def _forget_retired(self) -> None:
        """Forgets models that no longer serve once their last scores are judged."""
        if len(self._windows) == 1:
            return
        kept = self._waiting.model_versions | {self._serving}
        for version in [version for version in self._windows if version not in kept]:
            del self._windows[version], self._qualities[version]
