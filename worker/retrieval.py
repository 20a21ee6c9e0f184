"""Retrieves the evidence for one user's candidates from the tables.

Always the user's past items nearest to each candidate (ReLLa), what the users nearest to this one did with it
(OptiRAG-Rec, by GCN embedding), and how what it shares with other items fares. For a candidate that none of these users
has met, the nearest items that have been shown, and how they fared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.evidence import (
    CandidateEvidence,
    Evidence,
    ItemFacts,
    PastItem,
    SimilarItem,
    SimilarUser,
    UserEvidence,
)
from models.features import Features
from models.prompt import PromptLimits
from worker.graded_evidence import GradedPast, graded_evidence
from worker.shared_evidence import SharedEvidence, shared_evidence
from worker.state_store.columns import Matrix, Rows, normalised
from worker.state_store.rows import UNKNOWN_ROW
from worker.state_store.tables import Tables
from worker.state_store.vector_index import NO_ID

NEAR_USERS: Final = 128
"""How many of the nearest users are searched for one who has met a candidate."""


class Retriever:
    """Finds evidence in the tables. Unknown ids, items without embedding and users without history are no errors: they
    only yield less evidence.

    Args:
        tables: what is known.
        limits: how much evidence a prompt can show; no more is retrieved.
        near_users: how many nearest users are searched.
    """

    def __init__(self, tables: Tables, limits: PromptLimits, near_users: int = NEAR_USERS) -> None:
        self._tables = tables
        self._limits = limits
        self._near_users = near_users
        self._place_of_item = np.full(1, _NO_PLACE, np.int32)  # (item rows and more,) scratch, see `_votes`

    def retrieve(self, user_id: str, candidate_item_ids: Sequence[str]) -> Evidence:
        """Evidence for the candidates, in their order."""
        self._tables.refresh_indexes()
        user = self._user(user_id)
        candidates = self._candidates(candidate_item_ids)
        past = self._past_items(user, candidates)
        votes = self._votes(user, candidates)
        similar = self._similar_items(candidates, votes)
        shared = shared_evidence(self._tables.items, candidates.rows, user.past_rows, user.past_positive)
        graded = graded_evidence(self._tables.items, candidates.rows, user.graded)
        return self._as_evidence(user, candidates, _Found(past, votes, similar, shared, graded))

    def _user(self, user_id: str) -> _User:
        users = self._tables.users
        row = users.ids.row(user_id)
        if row == UNKNOWN_ROW:
            return _User(user_id, row, np.empty(0, np.bool_), None, GradedPast.unknown())
        packed, grades = users.histories.of(row)
        embedding = users.embeddings[row].astype(np.float32) if users.embedded[row] else None
        graded = GradedPast(packed >> 1, grades, users.counts[row])
        return _User(user_id, row, (packed & 1).astype(np.bool_), embedding, graded)

    def _candidates(self, item_ids: Sequence[str]) -> _Candidates:
        """Rows and directions of the distinct candidates."""
        items = self._tables.items
        distinct = list(dict.fromkeys(item_ids))
        rows = np.fromiter((items.ids.row(item_id) for item_id in distinct), np.int64, len(distinct))
        directions = np.zeros((len(rows), self._tables.embedding_dim), np.float32)
        embedded = rows != UNKNOWN_ROW
        embedded[embedded] = items.embedded[rows[embedded]]
        directions[embedded] = normalised(items.embeddings[rows[embedded]])
        return _Candidates(item_ids, distinct, rows, embedded, directions)

    def _past_items(self, user: _User, candidates: _Candidates) -> _Ranked:
        """Per candidate, the nearest items of the user's history; of an item met twice, the latest entry."""
        items = self._tables.items
        latest = len(user.past_rows) - 1 - np.unique(user.past_rows[::-1], return_index=True)[1]
        places = np.sort(latest[items.embedded[user.past_rows[latest]]])
        count = min(self._limits.past_items, len(places))
        if not count:
            return _Ranked.empty(len(candidates.rows))
        directions = normalised(items.embeddings[user.past_rows[places]])
        similarities = candidates.directions @ directions.T  # (candidates, places)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :count]
        found = np.where(candidates.embedded[:, None], places[order], NO_ID)
        return _Ranked(np.take_along_axis(similarities, order, axis=1), found)

    def _votes(self, user: _User, candidates: _Candidates) -> _Votes:
        """What the nearest users did with each candidate, as far back as their histories go."""
        neighbours, similarities = self._nearest_users(user)
        met = np.full((len(candidates.rows), len(neighbours)), _NOT_MET, np.int8)
        if met.size:
            places = self._places(candidates.rows)
            packed, voters = self._tables.users.histories.entries_of(neighbours)
            at_candidate = places[packed >> 1]
            found = np.flatnonzero(at_candidate != _NO_PLACE)
            # In the order of the history: of several votes on one item numpy keeps the last assigned, the latest.
            met[at_candidate[found], voters[found]] = packed[found] & 1
            places[candidates.rows[candidates.rows != UNKNOWN_ROW]] = _NO_PLACE
        return _Votes(neighbours, similarities, met)

    def _nearest_users(self, user: _User) -> tuple[Rows, NDArray[np.float32]]:
        if user.embedding is None:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        direction = normalised(user.embedding[None])
        similarities, rows = self._tables.user_index.search(direction, self._near_users + 1)
        others = (rows[0] != NO_ID) & (rows[0] != user.row)
        return rows[0][others][: self._near_users], similarities[0][others][: self._near_users]

    def _places(self, candidate_rows: Rows) -> NDArray[np.int32]:
        """A table from an item's row to its place among the candidates."""
        if len(self._place_of_item) <= self._tables.items.ids.high_water:
            self._place_of_item = np.full(2 * self._tables.items.ids.high_water + 1, _NO_PLACE, np.int32)
        known = np.flatnonzero(candidate_rows != UNKNOWN_ROW)
        self._place_of_item[candidate_rows[known]] = known
        return self._place_of_item

    def _similar_items(self, candidates: _Candidates, votes: _Votes) -> _Ranked:
        """The nearest items that have been shown, for candidates that none of the nearest users has met."""
        ranked = _Ranked.empty(len(candidates.rows), self._limits.similar_items)
        asking = np.flatnonzero(candidates.embedded & ~(votes.met != _NOT_MET).any(axis=1))
        if not len(asking) or not self._limits.similar_items:
            return ranked
        similarities, rows = self._tables.item_index.search(
            candidates.directions[asking], self._limits.similar_items + 1
        )
        rows[rows == candidates.rows[asking, None]] = NO_ID
        # The candidate itself is removed; moving the gap to the end keeps the order of the others.
        order = np.argsort(rows == NO_ID, axis=1, kind="stable")[:, : self._limits.similar_items]
        ranked.similarities[asking] = np.take_along_axis(similarities, order, axis=1)
        ranked.found[asking] = np.take_along_axis(rows, order, axis=1)
        return ranked

    def _as_evidence(self, user: _User, candidates: _Candidates, found: _Found) -> Evidence:
        """The evidence as the prompt builder reads it."""
        facts = self._facts(user, candidates, found.past, found.similar)
        own_past = found.past.per_candidate()
        voters = self._voters(found.votes)
        alike = found.similar.per_candidate()
        rows, positive = user.past_rows.tolist(), user.past_positive.tolist()
        evidence = {
            item_id: CandidateEvidence(
                item=facts[row] if row != UNKNOWN_ROW else ItemFacts(item_id),
                past=[PastItem(facts[rows[place]], positive[place], similarity) for similarity, place in own_past[at]],
                similar_users=voters[at],
                similar_items=[SimilarItem(facts[other], similarity) for similarity, other in alike[at]],
                shared=found.shared[at].features,
                graded=found.graded[at],
                attributes=found.shared[at].attributes,
            )
            for at, (item_id, row) in enumerate(zip(candidates.distinct, candidates.rows.tolist(), strict=True))
        }
        return Evidence(
            user=self._user_evidence(user, facts), candidates=[evidence[item_id] for item_id in candidates.asked]
        )

    def _facts(self, user: _User, candidates: _Candidates, past: _Ranked, similar: _Ranked) -> dict[int, ItemFacts]:
        """The facts of every item that the evidence names, once each."""
        recent = user.past_rows[-self._limits.recent_items :]
        shown_past = user.past_rows[past.found[past.found != NO_ID]]
        known = candidates.rows[candidates.rows != UNKNOWN_ROW]
        alike = similar.found[similar.found != NO_ID]
        return self._tables.items.facts(np.unique(np.concatenate((recent, shown_past, known, alike))))

    def _voters(self, votes: _Votes) -> list[list[SimilarUser]]:
        """Per candidate the nearest of those who have met it."""
        voters: list[list[SimilarUser]] = [[] for _ in votes.met]
        met_by_nearest = np.cumsum(votes.met != _NOT_MET, axis=1)
        shown = (votes.met != _NOT_MET) & (met_by_nearest <= self._limits.similar_users)
        similarities = votes.similarities.tolist()
        named = np.flatnonzero(shown.any(axis=0))
        names = dict(zip(named.tolist(), self._tables.users.ids.ids_of(votes.rows[named]), strict=True))
        for place, voter in np.argwhere(shown).tolist():
            voters[place].append(SimilarUser(names[voter], similarities[voter], bool(votes.met[place, voter])))
        return voters

    def _user_evidence(self, user: _User, facts: dict[int, ItemFacts]) -> UserEvidence:
        if user.row == UNKNOWN_ROW:
            return UserEvidence(user.user_id)
        impressions, positives = self._tables.users.counts[user.row, :2].tolist()
        recent = zip(
            user.past_rows[-self._limits.recent_items :].tolist(),
            user.past_positive[-self._limits.recent_items :].tolist(),
            strict=True,
        )
        return UserEvidence(
            user_id=user.user_id,
            embedding=user.embedding,
            impressions=impressions,
            positives=positives,
            recent=[PastItem(facts[row], positive) for row, positive in recent],
        )


_NO_PLACE: Final = -1
_NOT_MET: Final = -1


@dataclass(frozen=True, slots=True)
class _User:
    user_id: str
    row: int
    past_positive: NDArray[np.bool_]  # (history,)
    embedding: NDArray[np.float32] | None
    graded: GradedPast

    @property
    def past_rows(self) -> Rows:  # (history,) rows of items, oldest first
        return self.graded.rows


@dataclass(frozen=True, slots=True)
class _Candidates:
    asked: Sequence[str]
    distinct: list[str]
    rows: Rows  # (candidates,) UNKNOWN_ROW where nothing is known
    embedded: NDArray[np.bool_]  # (candidates,)
    directions: Matrix  # (candidates, dim), zeros where there is no embedding


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Per candidate the nearest items or history entries, NO_ID where there are fewer."""

    similarities: NDArray[np.float32]  # (candidates, count)
    found: NDArray[np.int64]  # (candidates, count)

    @classmethod
    def empty(cls, candidates: int, count: int = 0) -> _Ranked:
        return cls(np.zeros((candidates, count), np.float32), np.full((candidates, count), NO_ID, np.int64))

    def per_candidate(self) -> list[list[tuple[float, int]]]:
        pairs = zip(self.similarities.tolist(), self.found.tolist(), strict=True)
        return [
            [(similarity, found) for similarity, found in zip(*row, strict=True) if found != NO_ID] for row in pairs
        ]


@dataclass(frozen=True, slots=True)
class _Votes:
    rows: Rows  # (neighbours,) of users, nearest first
    similarities: NDArray[np.float32]  # (neighbours,)
    met: NDArray[np.int8]  # (candidates, neighbours): 1 clicked, 0 did not, _NOT_MET


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found for the distinct candidates."""

    past: _Ranked
    votes: _Votes
    similar: _Ranked
    shared: Sequence[SharedEvidence]
    graded: Features  # (candidates, len(GRADED_FEATURES))
