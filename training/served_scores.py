"""Scores prompts as a worker without load serves them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.prompt import Prompt
from training.evaluate import SCORED_AT_ONCE
from training.progress import Advance
from worker.engine.engine import ScoringEngine
from worker.engine.scoring_job import ScoringJob
from worker.engine.settings import EngineSettings

Floats = NDArray[np.float64]


class ServedScores:
    """Click rates at the base threshold. Prompts are scored in groups, so that memory stays bounded.

    Args:
        bundle: the model.
        advance: is told how many prompts are scored.
    """

    def __init__(self, bundle: Bundle, advance: Advance) -> None:
        self._engine: ScoringEngine[ScoringJob] = ScoringEngine(
            bundle.model, bundle.calibration, EngineSettings(prefix_cache_bytes=0)
        )
        self._advance = advance
        self._waiting: list[Prompt] = []
        self._ctrs: list[Floats] = [np.zeros(0)]

    def add(self, prompt: Prompt) -> None:
        """Take a prompt in."""
        self._waiting.append(prompt)
        if len(self._waiting) == SCORED_AT_ONCE:
            self._score()

    def ctrs(self) -> Floats:
        """Of all prompts' candidates, in their order."""
        if self._waiting:
            self._score()
        return np.concatenate(self._ctrs)

    def _score(self) -> None:
        self._ctrs += [np.asarray(job.ctr, np.float64) for job in self._engine.score(self._waiting)]
        self._advance(len(self._waiting))
        self._waiting = []
