"""One request as the engine sees it, and its answers as they come in."""

from __future__ import annotations

import math
from typing import Final, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.messages import MadeBy, QualityFloor
from worker.engine.timeline import Timeline

MADE_BY: Final[tuple[MadeBy, ...]] = get_args(MadeBy)
"""`ScoringJob.made_by` holds indices into this."""
CONFIDENT, FINAL, DEADLINE, GRAPH = (MADE_BY.index(made) for made in ("confident", "final", "deadline", "graph"))


class ScoringJob:
    """A request's candidates, its deadline and its answers.

    Args:
        candidates: how many there are; every array has a place for each.
        deadline_s: when the scores must be with their reader, monotonic seconds.
        budget_s: how long the request may take in all.
        quality_floor: the least that may answer it, however late.
        arrived_s: when it came, monotonic seconds.
        due_s: its place in the queue; None for the deadline.

    Attributes:
        ctr: (candidates,) click-through rates.
        exit_layer: (candidates,) decoder layers run; 0 for the graph.
        confidence: (candidates,) of the head that answered.
        made_by: (candidates,) indices into `MADE_BY`.
        unanswered: candidates without an answer.
        threshold: the exit threshold in force when its last candidates left.
        begun_s: when work on it began, monotonic seconds.
        scored_s: when its last candidate was answered, monotonic seconds.
        infer_s: seconds of the stages that it was part of.
        token_layers_run: how often a token passed a layer for it; a token that only gave keys and values did not.
        token_layers_full: the same if nothing left early and the prefix cache were empty.
        timeline: when its steps ran, if that is asked for; None: nobody asks.
    """

    def __init__(
        self,
        candidates: int,
        *,
        deadline_s: float = math.inf,
        budget_s: float = 0.0,
        quality_floor: QualityFloor = "graph",
        arrived_s: float = 0.0,
        due_s: float | None = None,
    ) -> None:
        self.deadline_s = deadline_s
        self.budget_s = budget_s
        self.quality_floor = quality_floor
        self.arrived_s = arrived_s
        self.due_s = deadline_s if due_s is None else due_s
        self.ctr: NDArray[np.float64] = np.empty(candidates)
        self.ctr.fill(np.nan)  # `numpy.full` takes five times as long for so few
        self.exit_layer: NDArray[np.int32] = np.zeros(candidates, np.int32)
        self.confidence: NDArray[np.float64] = np.zeros(candidates)
        self.made_by: NDArray[np.int8] = np.empty(candidates, np.int8)
        self.made_by.fill(GRAPH)
        self.unanswered = candidates
        self.threshold = 0.0
        self.begun_s: float | None = None
        self.scored_s = 0.0
        self.infer_s = 0.0
        self.token_layers_run = 0
        self.token_layers_full = 0
        self.timeline: Timeline | None = None

    def __len__(self) -> int:
        return len(self.ctr)

    @property
    def place(self) -> str:
        """Where the request came from, for people; empty where that does not matter."""
        return ""

    @property
    def is_unbegun(self) -> bool:
        """Whether no part of it was prepared or answered."""
        return self.begun_s is None and self.unanswered == len(self)

    @property
    def may_be_late(self) -> bool:
        """Whether the requester prefers a late answer to one from the graph."""
        return self.quality_floor != "graph"

    def answer(
        self, places: NDArray[np.int64], ctr: ArrayLike, exit_layer: int, confidence: ArrayLike, made_by: int
    ) -> None:
        """Records the answers of some of its candidates; a later answer takes an earlier one's place.

        Raises:
            ValueError: a rate or a confidence is no finite number; nothing was recorded.
        """
        if not (np.isfinite(ctr).all() and np.isfinite(confidence).all()):
            raise ValueError("a rate or a confidence that is no finite number")
        first_answers = int(np.isnan(self.ctr[places]).sum())
        self.ctr[places] = ctr
        self.exit_layer[places] = exit_layer
        self.confidence[places] = confidence
        self.made_by[places] = made_by
        self.unanswered -= first_answers
