"""A request on its way through the worker: plain data that the steps fill in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.evidence import CandidateEvidence
from runtime.deadline import Deadline
from runtime.records import Record
from schemas.messages import ImpressionRequest
from worker.engine.records import GRAPH


@dataclass(slots=True, eq=False)
class Job:
    """One request, from its intake to its answer.

    Arrays hold a place per distinct candidate, in the order of the request.
    """

    record: Record
    request: ImpressionRequest
    deadline: Deadline
    budget_s: float
    due_s: float = field(init=False)
    """Its place in the queue, monotonic seconds: the deadline; for a request that was late when it came, its budget
    from then on, so that what cannot be in time does not overtake what can.
    """
    item_ids: list[str] = field(init=False)
    ctr: NDArray[np.float64] = field(init=False)  # (n,)
    exit_layer: NDArray[np.int32] = field(init=False)  # (n,)
    confidence: NDArray[np.float64] = field(init=False)  # (n,)
    made_by: NDArray[np.int8] = field(init=False)  # (n,) indices into `worker.engine.records.MADE_BY`
    evidence: dict[int, CandidateEvidence] = field(default_factory=dict)
    """By place; what was retrieved for candidates that went to the engine."""
    unanswered: int = field(init=False)
    threshold: float = 0.0
    """The exit threshold in force when its last candidates left."""
    embedding_version: int = 0
    embedding_time_ms: int | None = None
    """Event time of the newest interaction that the user's embedding knew of."""
    begun_s: float | None = None
    """Monotonic seconds when work on it began."""
    scored_s: float = 0.0
    """Monotonic seconds when its last candidate was answered."""
    scored_time_ms: int = 0
    retrieve_s: float = 0.0
    prompt_s: float = 0.0
    infer_s: float = 0.0
    token_layers_run: int = 0
    token_layers_full: int = 0

    def __post_init__(self) -> None:
        deadline = self.deadline
        self.due_s = deadline.intake + self.budget_s if deadline.late_at_intake else deadline.at
        self.item_ids = list(dict.fromkeys(self.request.candidate_item_ids))
        count = len(self.item_ids)
        self.ctr = np.zeros(count)
        self.exit_layer = np.zeros(count, np.int32)
        self.confidence = np.zeros(count)
        self.made_by = np.full(count, GRAPH, np.int8)
        self.unanswered = count


@dataclass(slots=True, eq=False)
class Part:
    """Some neighbouring candidates of a job, scored together. Most jobs are one part."""

    job: Job
    start: int
    stop: int
    bulk: bool
    """Beyond one request's fair share: its turn comes when nobody else waits."""
    urgency: tuple[bool, float] = field(init=False)
    """Sort key: smaller is served first. Kept, as those that wait are sorted again and again."""

    def __post_init__(self) -> None:
        self.urgency = self.bulk, self.job.due_s

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def item_ids(self) -> Sequence[str]:
        """Of its candidates."""
        return self.job.item_ids[self.start : self.stop]

    @property
    def may_be_late(self) -> bool:
        """Whether the requester would rather have it late than answered by the graph."""
        return self.job.request.quality_floor != "graph"


def cut(job: Job, part_candidates: int, fair_candidates: int) -> list[Part]:
    """The job in parts of at most `part_candidates`, those beyond its first `fair_candidates` as bulk."""
    count = len(job.item_ids)
    return [
        Part(job, start, min(start + part_candidates, count), bulk=start >= fair_candidates)
        for start in range(0, count, part_candidates)
    ]
