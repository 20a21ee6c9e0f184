"""A request and its answer as a person reads them: titles instead of ids, the prompt in words, the neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from models.evidence import CandidateEvidence, Evidence, ItemFacts, UserEvidence
from models.prompt_rendering import render
from worker.engine.scoring_job import MADE_BY
from worker.job import Job
from worker.model import ServingModel
from worker.state_store.rows import UNKNOWN_ROW

SHOWN_CANDIDATES: Final = 3
"""Of an answered request, those with the highest rates."""
_TITLE_TOKENS: Final = 24
_NEIGHBOURS: Final = 4
"""Of each kind; as many as the prompt shows."""


class NeighbourInWords(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of evidence."""

    kind: str
    name: str
    """An item's title or id, a user's id."""
    similarity: float
    outcome: str


class CandidateInWords(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate and what its score rests on."""

    item_id: str
    title: str
    """Empty where it has none."""
    record: str
    """How the item has fared so far."""
    prompt: str
    """Empty where no evidence was retrieved: the graph answered."""
    neighbours: Sequence[NeighbourInWords]


class AnsweredCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate's score."""

    ctr: float
    made_by: str
    exit_layer: int
    confidence: float
    words: CandidateInWords


class AnsweredRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One answered request, as an example."""

    request_id: str
    user_id: str
    user: str
    """What is known of the user."""
    scored_time_ms: int
    status: str
    latency_ms: float
    budget_ms: float
    threshold: float
    candidates: int
    prompt: str
    """What all candidates share of it."""
    best: Sequence[AnsweredCandidate]


class InWords:
    """Puts requests into words; to be used in the compute thread, which owns the tables.

    Args:
        model: that answered them.
    """

    def __init__(self, model: ServingModel) -> None:
        self._tables = model.tables
        self._text = model.text
        self._prompts = model.prompts

    def answered(self, job: Job) -> AnsweredRequest:
        """An answered request: the candidates with the highest rates, with prompt and neighbours where they had any."""
        best = (-job.ctr).argsort(kind="stable")[:SHOWN_CANDIDATES].tolist()
        told = [place for place in best if place in job.evidence]
        user = job.user or UserEvidence(job.request.user_id)
        prefix, candidates = self.evidence(Evidence(user=user, candidates=[job.evidence[place] for place in told]))
        words = dict(zip(told, candidates, strict=True))
        return AnsweredRequest(
            request_id=job.request.request_id,
            user_id=job.request.user_id,
            user=self.user(job.request.user_id),
            scored_time_ms=job.scored_time_ms,
            status=job.status,
            latency_ms=job.latency_s * 1000,
            budget_ms=job.budget_s * 1000,
            threshold=job.threshold,
            candidates=len(job.item_ids),
            prompt=prefix if told else "",
            best=[
                AnsweredCandidate(
                    ctr=float(job.ctr[place]),
                    made_by=MADE_BY[job.made_by[place]],
                    exit_layer=int(job.exit_layer[place]),
                    confidence=float(job.confidence[place]),
                    words=words.get(place) or self._without_evidence(job.item_ids[place]),
                )
                for place in best
            ],
        )

    def user(self, user_id: str) -> str:
        """What is known of a user now, for example `4 clicks in 31 impressions`."""
        row = self._tables.users.ids.row(user_id)
        impressions, positives = (0, 0) if row == UNKNOWN_ROW else self._tables.users.counts[row, :2].tolist()
        return _record(positives, impressions) if impressions else "nothing is known of this user"

    def evidence(self, evidence: Evidence) -> tuple[str, list[CandidateInWords]]:
        """The part of the prompt that all candidates share, and each candidate with its own part and its neighbours."""
        prompt = self._prompts.build(evidence)
        shared, *own = self._prompts.soft_items(evidence)
        return render(prompt.prefix, self._text, shared), [
            CandidateInWords(
                item_id=candidate.item.item_id,
                title=self._title(candidate.item),
                record=_record(candidate.item.positives, candidate.item.impressions),
                prompt=render(suffix, self._text, items),
                neighbours=self._neighbours(candidate),
            )
            for candidate, suffix, items in zip(evidence.candidates, prompt.suffixes, own, strict=True)
        ]

    def _without_evidence(self, item_id: str) -> CandidateInWords:
        row = self._tables.items.ids.row(item_id)
        item = ItemFacts(item_id) if row == UNKNOWN_ROW else self._tables.items.facts(np.array([row]))[row]
        return CandidateInWords(
            item_id=item_id,
            title=self._title(item),
            record=_record(item.positives, item.impressions),
            prompt="",
            neighbours=[],
        )

    def _neighbours(self, candidate: CandidateEvidence) -> list[NeighbourInWords]:
        own = [
            NeighbourInWords(
                kind="own past",
                name=self._name(past.item),
                similarity=past.similarity,
                outcome="clicked" if past.positive else "not clicked",
            )
            for past in candidate.past[:_NEIGHBOURS]
        ]
        others = [
            NeighbourInWords(
                kind="similar user",
                name=near.user_id,
                similarity=near.similarity,
                outcome="clicked it" if near.positive else "did not click it",
            )
            for near in candidate.similar_users[:_NEIGHBOURS]
        ]
        alike = [
            NeighbourInWords(
                kind="similar item",
                name=self._name(near.item),
                similarity=near.similarity,
                outcome=_record(near.item.positives, near.item.impressions),
            )
            for near in candidate.similar_items[:_NEIGHBOURS]
        ]
        return own + others + alike

    def _name(self, item: ItemFacts) -> str:
        return self._title(item) or item.item_id

    def _title(self, item: ItemFacts) -> str:
        return self._text.decode(item.title_tokens[:_TITLE_TOKENS]).strip() if len(item.title_tokens) else ""


def _record(positives: int, impressions: int) -> str:
    return f"{_count(positives, 'click')} in {_count(impressions, 'impression')}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
