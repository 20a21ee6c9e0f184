"""A finished job as the record of its scores."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from typing import Final

from models.evidence import CandidateEvidence
from runtime.records import OutRecord
from schemas.codec import CONTENT_TYPES, WireFormat, encode, headers_for
from schemas.messages import CandidateScore, ImpressionScores, Neighbour
from worker.engine.scoring_job import MADE_BY
from worker.job import Job
from worker.settings import AnswerFormat

_HEADERS: Final[dict[WireFormat, tuple[tuple[str, bytes], ...]]] = {
    wire_format: tuple(headers_for(wire_format)) for wire_format in CONTENT_TYPES
}


class Publisher:
    """Writes score records.

    Args:
        topic: where scores go.
        answer_format: how they are encoded; "as_asked": each as its request was.
        neighbours: most pieces of evidence named per candidate.
    """

    def __init__(self, topic: str, answer_format: AnswerFormat, neighbours: int) -> None:
        self._topic = topic
        self._wire_format: WireFormat | None = None if answer_format == "as_asked" else answer_format
        self._neighbours = neighbours

    def record(self, job: Job, *, with_neighbours: bool = True) -> OutRecord:
        """The job's answer, keyed by its request id."""
        scores = self.scores(job, self._neighbours if with_neighbours else 0)
        wire_format = self._wire_format or job.wire_format
        headers = (*_HEADERS[wire_format], *job.trace_headers) if job.trace_headers else _HEADERS[wire_format]
        return OutRecord(self._topic, scores.request_id.encode(), encode(scores, wire_format), headers)

    def scores(self, job: Job, neighbours: int) -> ImpressionScores:
        """The job's answer."""
        request = job.request
        return ImpressionScores(
            request_id=request.request_id,
            user_id=request.user_id,
            status=job.status,
            scores=_candidate_scores(job, neighbours),
            model_version=job.model_version,
            created_time_ms=request.created_time_ms,
            deadline_ms=job.deadline.wall_ms,
            scored_time_ms=job.scored_time_ms,
            exit_threshold=job.threshold,
            lateness_ms=job.lateness_ms,
            embedding_version=job.embedding_version,
            embedding_age_ms=job.embedding_age_ms,
            step_times=job.step_times,
            user_state_read=job.user_state_read,
        )


def _candidate_scores(job: Job, neighbours: int) -> list[CandidateScore]:
    columns = zip(
        job.item_ids,
        job.ctr.tolist(),
        job.made_by.tolist(),
        job.exit_layer.tolist(),
        job.confidence.tolist(),
        strict=True,
    )
    return [
        CandidateScore(
            item_id=item_id,
            ctr=ctr,
            made_by=MADE_BY[made_by],
            exit_layer=exit_layer,
            confidence=confidence,
            neighbours=_neighbours(job.evidence[place], neighbours) if neighbours and place in job.evidence else [],
        )
        for place, (item_id, ctr, made_by, exit_layer, confidence) in enumerate(columns)
    ]


def _neighbours(evidence: CandidateEvidence, count: int) -> list[Neighbour]:
    """The nearest of each kind in turn."""
    kinds = (
        (Neighbour(kind="past_item", id=past.item.item_id, similarity=past.similarity, positive=past.positive)
         for past in evidence.past),
        (Neighbour(kind="similar_user", id=near.user_id, similarity=near.similarity, positive=near.positive)
         for near in evidence.similar_users),
        (Neighbour(kind="similar_item", id=near.item.item_id, similarity=near.similarity)
         for near in evidence.similar_items),
    )  # fmt: skip
    by_turns: Iterator[Neighbour | None] = chain.from_iterable(zip_longest(*kinds))
    return list(islice((neighbour for neighbour in by_turns if neighbour is not None), count))
