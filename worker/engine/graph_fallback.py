"""Candidates that no head answers: they get the graph's rate or, where that fails too, the base rate."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import structlog

from worker.engine.counters import EngineCounters
from worker.engine.isolation import isolated
from worker.engine.prompt_source import Floats, Places, PromptSource
from worker.engine.scoring_job import GRAPH, ScoringJob

log = structlog.get_logger(__name__)
JobT = TypeVar("JobT", bound=ScoringJob)


class GraphFallback(Generic[JobT]):
    """The last two rungs of the ladder. Every candidate added is answered, whatever fails.

    Args:
        base_rate: the rate of a candidate of which nothing is known, finite; `graph` marks it like the graph's.
        counters: faults are counted here.
    """

    def __init__(self, base_rate: float, counters: EngineCounters) -> None:
        self._base_rate = base_rate
        self._counters = counters
        self._asked: deque[tuple[JobT, Places]] = deque()

    def __len__(self) -> int:
        """Parts of requests that wait."""
        return len(self._asked)

    @property
    def jobs(self) -> set[JobT]:
        """The requests that they belong to."""
        return {job for job, _ in self._asked}

    def add(self, job: JobT, places: Places) -> None:
        """Takes in candidates of a request; those that are answered already stay so."""
        open_places = places[np.isnan(job.ctr[places])]
        if len(open_places):
            self._asked.append((job, open_places))

    def answer(self, source: PromptSource[JobT], most: int) -> list[JobT]:
        """Answers at most so many parts, together where that is possible; the jobs they belong to."""
        batch = [self._asked.popleft() for _ in range(min(len(self._asked), most))]
        for asked, rates in isolated(batch, partial(_graph_rates, source), self._answer_with_base_rate):
            for (job, places), ctr in zip(asked, rates, strict=True):
                job.answer(places, self._finite(job, ctr), 0, 0.0, GRAPH)
        return list(dict.fromkeys(job for job, _ in batch))

    def _answer_with_base_rate(self, asked: tuple[JobT, Places], error: Exception) -> None:
        job, places = asked
        self._counters.faults += 1
        log.error(
            "answered with the base rate: the graph score failed", place=job.place, reason=repr(error), exc_info=error
        )
        job.answer(places, self._base_rate, 0, 0.0, GRAPH)

    def _finite(self, job: JobT, ctr: Floats) -> Floats:
        finite = np.isfinite(ctr)
        if finite.all():
            return ctr
        self._counters.faults += 1
        log.error(
            "answered with the base rate: the graph score is no number",
            place=job.place,
            candidates=int((~finite).sum()),
        )
        return np.where(finite, ctr, self._base_rate)


def _graph_rates(source: PromptSource[JobT], asked: Sequence[tuple[JobT, Places]]) -> list[Floats]:
    """The source's rates, checked for their shape so that a wrong answer fails here."""
    rates = source.graph_ctr(asked)
    if [len(own) for own in rates] != [len(places) for _, places in asked]:
        raise ValueError(f"{len(asked)} requests asked for graph scores, but the answer has another shape")
    return rates
