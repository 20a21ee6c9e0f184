"""One impression request from its arrival to its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.evidence import CandidateEvidence, UserEvidence
from runtime.deadline import Deadline
from runtime.records import Headers, Record
from schemas.codec import WireFormat
from schemas.messages import ImpressionRequest, RequestStatus, StepTimes
from worker.engine.scoring_job import ScoringJob

if TYPE_CHECKING:
    from runtime.observability.spans import Span


class Job(ScoringJob):
    """A request, the record it came in, and what the steps find out.

    Args:
        record: as read.
        request: decoded.
        deadline: of the request.
        budget_s: its own, its record header's, or the setting's.
        wire_format: the format in which it came.

    Attributes:
        item_ids: the distinct candidates, in the order of the request.
        model_version: of the model that scores it; empty until it has one.
        exit_layers: decoder layers up to each head of that model.
        evidence: by place, what was retrieved for candidates that a head was asked about.
        user: what was known of the user; None where nothing was retrieved.
        embedding_version: of the user's embedding that it was scored with; 0 for none.
        user_state_read: whether the partition of the user's state had been read.
        graph_only: no head is to be asked.
        embedding_time_ms: event time of the newest interaction that this embedding includes.
        retrieve_s: seconds of retrieval.
        prompt_s: seconds of prompt building.
        trace: its span; None if it is not traced.
        trace_headers: the trace that its scores belong to.
    """

    def __init__(
        self,
        record: Record,
        request: ImpressionRequest,
        deadline: Deadline,
        budget_s: float,
        wire_format: WireFormat = "msgpack",
    ) -> None:
        self.item_ids = list(dict.fromkeys(request.candidate_item_ids))
        super().__init__(
            len(self.item_ids),
            deadline_s=deadline.at,
            budget_s=budget_s,
            quality_floor=request.quality_floor,
            arrived_s=deadline.intake,
            # Requests that came late queue behind those that can still be in time.
            due_s=deadline.intake + budget_s if deadline.late_at_intake else deadline.at,
        )
        self.record = record
        self.wire_format = wire_format
        self.request = request
        self.deadline = deadline
        self.model_version = ""
        self.exit_layers: Sequence[int] = ()
        self.evidence: dict[int, CandidateEvidence] = {}
        self.user: UserEvidence | None = None
        self.embedding_version = 0
        self.user_state_read = True
        self.graph_only = False
        self.embedding_time_ms: int | None = None
        self.retrieve_s = 0.0
        self.prompt_s = 0.0
        self.trace: Span | None = None
        self.trace_headers: Headers = ()

    @property
    def place(self) -> str:
        """Topic, partition and offset of its record, for people."""
        return str(self.record)

    def items_at(self, places: NDArray[np.int64]) -> list[str]:
        """The candidates at some places."""
        return [self.item_ids[place] for place in places.tolist()]

    @property
    def lateness_ms(self) -> float:
        """By how much it was scored after its deadline; 0 if it was in time."""
        return max(0.0, (self.scored_s - self.deadline.at) * 1000)

    @property
    def scored_time_ms(self) -> int:
        """When its last candidate was answered, Unix milliseconds."""
        return round(self.wall_ms_at(self.scored_s))

    def wall_ms_at(self, monotonic_s: float) -> float:
        """A moment of its way as Unix milliseconds."""
        return self.deadline.wall_ms + (monotonic_s - self.deadline.at) * 1000

    @property
    def latency_s(self) -> float:
        """From the request's created time until it was scored."""
        return self.deadline.transit_ms / 1000 + self.scored_s - self.deadline.intake

    @property
    def status(self) -> RequestStatus:
        """What became of it."""
        if not self.item_ids:
            return "empty"
        return "late" if self.lateness_ms > 0 else "ok"

    @property
    def embedding_age_ms(self) -> float | None:
        """Age of the newest interaction that the user's embedding included when it was scored."""
        if self.embedding_time_ms is None:
            return None
        return max(0.0, float(self.scored_time_ms - self.embedding_time_ms))

    @property
    def queue_s(self) -> float:
        """From its arrival until work on it began, or until it was scored without any."""
        return (self.scored_s if self.begun_s is None else self.begun_s) - self.deadline.intake

    @property
    def step_times(self) -> StepTimes:
        """Where the time went."""
        return StepTimes(
            transit_ms=self.deadline.transit_ms,
            queue_ms=self.queue_s * 1000,
            retrieve_ms=self.retrieve_s * 1000,
            prompt_ms=self.prompt_s * 1000,
            infer_ms=self.infer_s * 1000,
        )
