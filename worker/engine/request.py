"""A submitted request as a whole: how it is cut into parts, and its answers as they come in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.prompt import Prompt
from worker.engine.records import EngineResult, Work


def parts_of(prompt: Prompt, max_tokens: int) -> list[NDArray[np.int64]]:
    """The prompt's candidates in runs that fit into a batch together with the prefix; at least one each."""
    room = max_tokens - len(prompt.prefix)
    ends = np.cumsum(prompt.suffix_lengths)
    cuts, taken = [0], 0
    while cuts[-1] < len(ends):
        stop = max(int(np.searchsorted(ends, taken + room, side="right")), cuts[-1] + 1)
        cuts.append(stop)
        taken = int(ends[stop - 1])
    return [np.arange(start, stop) for start, stop in pairwise(cuts)]


class Request:
    """Answers of one request, filled in by candidate.

    Args:
        work: as submitted.
        exit_layers: decoder layers before each head.
    """

    def __init__(self, work: Work, exit_layers: Sequence[int]) -> None:
        candidates = len(work.prompt.suffixes)
        self.parts_left = 0
        self.token_layers_full = (exit_layers[-1] - 1) * work.prompt.tokens + len(exit_layers) * candidates
        self._key = work.key
        self._ctr = np.full(candidates, np.nan)
        self._exit_layer = np.zeros(candidates, np.int32)
        self._confidence = np.zeros(candidates)
        self._made_by = np.zeros(candidates, np.int8)
        self._token_layers_run = 0
        self._infer_s = 0.0

    def ran(self, token_layers: int, seconds: float) -> None:
        """Account for a stage that it was part of."""
        self._token_layers_run += token_layers
        self._infer_s += seconds

    def answer(
        self,
        candidates: NDArray[np.int64],
        ctr: NDArray[np.float64] | float,
        exit_layer: int,
        confidence: NDArray[np.float64],
        made_by: int,
    ) -> None:
        """Record the answers of some candidates."""
        self._ctr[candidates] = ctr
        self._exit_layer[candidates] = exit_layer
        self._confidence[candidates] = confidence
        self._made_by[candidates] = made_by

    def result(self) -> EngineResult:
        """All answers; to be asked for when the last candidate has one."""
        return EngineResult(
            key=self._key,
            ctr=self._ctr,
            exit_layer=self._exit_layer,
            confidence=self._confidence,
            made_by=self._made_by,
            token_layers_run=self._token_layers_run,
            token_layers_full=self.token_layers_full,
            infer_s=self._infer_s,
        )
