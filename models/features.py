"""Numeric features: the input of the graph score and of the `statistics` soft token.

`graph_features` need no retrieval, so a backlog can be scored from them quickly; `evidence_features` summarise what
retrieval found, and `shared_features` how what a candidate shares with other items fares. `graded_features` is a file
of its own. Rates are shrunk towards a
prior (`PRIOR_IMPRESSIONS` imagined impressions at `PRIOR_RATE`). They are given as logits, counts as logarithms, so
that all features stay within a few units of zero.

A click on a popular item says little about the user. So most features of a user's past use the surprise: 1 for a click,
0 for none, minus the item's click rate. Over all items the mean surprise tells how readily the user clicks; over items
similar to the candidate it tells their taste.
"""

from __future__ import annotations

import math
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.evidence import CandidateEvidence, Evidence, PastItem, UserEvidence, Vector

GRAPH_FEATURES: Final = (
    "affinity",
    "cosine",
    "user_rate",
    "item_rate",
    "user_count",
    "item_count",
    "user_known",
    "item_known",
)
EVIDENCE_FEATURES: Final = (
    "past_vote",
    "past_surprise",
    "past_similarity",
    "past_known",
    "neighbour_vote",
    "neighbour_count",
    "similar_item_rate",
    "history_surprise",
    "recent_surprise",
    "recent_rate",
    "recent_count",
)
SHARED_FEATURES: Final = (
    "attribute_rate",
    "attribute_count",
    "attribute_surprise",
    "attribute_history",
    "word_rate",
    "word_count",
    "word_surprise",
    "word_history",
)
GRADED_FEATURES: Final = (
    "user_grade",
    "history_grade",
    "recent_grade",
    "grade_spread",
    "item_grade",
    "attribute_grade",
    "attribute_grade_surprise",
    "title_grade",
    "title_count",
    "past_grade",
    "similar_grade",
)
CROSSED_FEATURES: Final = ("user_rate_counted", "item_rate_counted", "user_rate_spread")
FEATURES: Final = GRAPH_FEATURES + EVIDENCE_FEATURES + SHARED_FEATURES + GRADED_FEATURES + CROSSED_FEATURES
"""New ones are added at the end: a model reads as many as it was trained on."""
FIRST_FEATURES: Final = len(GRAPH_FEATURES) + len(EVIDENCE_FEATURES)
"""How many there were before models told how many they read."""

PRIOR_IMPRESSIONS: Final = 4.0
PRIOR_RATE: Final = 0.5
PRIOR_SURPRISE: Final = 3.0
"""Weight of the imagined unsurprising events that shrink a mean surprise towards zero."""
RECENT_HALF_LIFE: Final = 4.0
"""Number of later events after which an event counts half."""

PRIOR_SHARED: Final = 0.5
"""Weight of the imagined unsurprising event that shrinks the surprise at what a candidate shares with the past."""

Features = NDArray[np.float32]
F = TypeVar("F", np.float32, np.float64)


def graph_features(
    user_embedding: Vector | None,
    user_counts: tuple[int, int],
    item_embeddings: NDArray[np.float32],
    item_counts: NDArray[np.float32],
) -> Features:
    """Features of one user's candidates that need no retrieval.

    Args:
        user_embedding: (dim,) or None.
        user_counts: impressions and positives of the user.
        item_embeddings: (candidates, dim), zero rows where an item has none.
        item_counts: (candidates, 2) impressions and positives.

    Returns:
        (candidates, len(GRAPH_FEATURES)).
    """
    candidates = len(item_counts)
    features = np.zeros((candidates, len(GRAPH_FEATURES)), np.float32)
    item_norms = np.linalg.norm(item_embeddings, axis=1)
    if user_embedding is not None:
        features[:, 0] = item_embeddings @ user_embedding
        norms = item_norms * np.linalg.norm(user_embedding)
        np.divide(features[:, 0], norms, out=features[:, 1], where=norms > 0)
    features[:, 2] = shrunk_logit(user_counts[1], user_counts[0])
    features[:, 3] = shrunk_logit(item_counts[:, 1], item_counts[:, 0])
    features[:, 4] = np.log1p(user_counts[0])
    features[:, 5] = np.log1p(item_counts[:, 0])
    features[:, 6] = user_counts[0] > 0
    features[:, 7] = item_counts[:, 0] > 0
    return features


def as_unknown(features: NDArray[F], *, user: bool = False, item: bool = False) -> NDArray[F]:
    """Graph features (n, len(GRAPH_FEATURES)) as if the user, the item or both were unknown."""
    columns = {"affinity", "cosine"}
    columns |= {"user_rate", "user_count", "user_known"} if user else set()
    columns |= {"item_rate", "item_count", "item_known"} if item else set()
    unknown = features.copy()
    # Without impressions the shrunk rate is the prior's, whose logit is 0, like all other features of an unknown id.
    unknown[:, [GRAPH_FEATURES.index(name) for name in columns]] = 0.0
    return unknown


def evidence_features(evidence: Evidence) -> Features:
    """Features (candidates, len(EVIDENCE_FEATURES)) that summarise what retrieval found."""
    features = np.zeros((len(evidence.candidates), len(EVIDENCE_FEATURES)), np.float32)
    for row, candidate in zip(features, evidence.candidates, strict=True):
        row[:-4] = _candidate_features(candidate)
    features[:, -4:] = _user_features(evidence.user)
    return features


def shared_features(there: NDArray[np.bool_], of_others: NDArray[np.int64], with_user: NDArray[np.float64]) -> Features:
    """Four features of what candidates share with other items: their attributes' values, or their titles' words.

    A value that many items have (a language) says less than one of a few (an author): it counts less by the logarithm
    of its impressions.

    Args:
        there: (candidates, values) False where a candidate has fewer values.
        of_others: (candidates, values, 2) impressions and positives of the other items with the value.
        with_user: (candidates, values, 3) the user's own impressions, positives and summed surprise with it.

    Returns:
        (candidates, 4): a click rate as logit, a count of impressions as logarithm, a mean surprise, and the logarithm
        of the user's impressions; zeros where there are no values.
    """
    impressions, positives = of_others[..., 0].astype(np.float64), of_others[..., 1].astype(np.float64)
    telling, known = telling_and_known(there, impressions)
    misses = np.maximum(impressions - positives, 0.0)
    rates = np.log((positives + PRIOR_IMPRESSIONS * PRIOR_RATE) / (misses + PRIOR_IMPRESSIONS * (1 - PRIOR_RATE)))
    met, surprise = with_user[..., 0], with_user[..., 2]
    features = np.zeros((len(there), 4), np.float32)
    features[:, 0] = (known * rates).sum(axis=1) / np.maximum(known.sum(axis=1), 1e-6)
    features[:, 1] = np.log1p((there * impressions).sum(axis=1) / np.maximum(there.sum(axis=1), 1))
    features[:, 2] = (telling * surprise).sum(axis=1) / ((telling * met).sum(axis=1) + PRIOR_SHARED)
    features[:, 3] = np.log1p((there * met).sum(axis=1))
    return features


def crossed_features(others: Features) -> Features:
    """Products of two statistics, which a regression on each of them cannot make up for: how far a rate can be trusted
    grows with the impressions behind it, and a user's rate tells less of one whose grades lie far apart.

    Args:
        others: (candidates, all `FEATURES` before these).

    Returns:
        (candidates, len(CROSSED_FEATURES)).
    """
    user_rate, item_rate, user_count, item_count, spread = (others[:, place] for place in _CROSSED)
    return np.stack([user_rate * user_count, item_rate * item_count, user_rate * spread], axis=1)


_CROSSED: Final = tuple(map(FEATURES.index, ("user_rate", "item_rate", "user_count", "item_count", "grade_spread")))


def telling_and_known(
    there: NDArray[np.bool_], impressions: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much each value (candidates, values) says of those who have it, and how much of that its impressions show."""
    telling: NDArray[np.float64] = there / np.log(np.e + impressions)
    known: NDArray[np.float64] = telling * impressions / (impressions + PRIOR_IMPRESSIONS)
    return telling, known


def _candidate_features(candidate: CandidateEvidence) -> tuple[float, ...]:
    """All of `EVIDENCE_FEATURES` but the last four. Plain Python: for a dozen numbers NumPy is slower."""
    past_weight = past_vote = past_surprise = past_similarity = 0.0
    for past in candidate.past:
        weight = max(past.similarity, 0.0)
        past_weight += weight
        past_vote += weight if past.positive else -weight
        past_surprise += weight * _surprise(past)
        past_similarity = max(past_similarity, weight)
    near_weight = near_vote = 0.0
    for near in candidate.similar_users:
        weight = max(near.similarity, 0.0)
        near_weight += weight
        near_vote += weight if near.positive else -weight
    impressions = sum(near.item.impressions for near in candidate.similar_items)
    positives = sum(near.item.positives for near in candidate.similar_items)
    return (
        past_vote / (past_weight + 1.0),
        past_surprise / (past_weight + PRIOR_SURPRISE),
        past_similarity,
        float(bool(candidate.past)),
        near_vote / (near_weight + 1.0),
        math.log1p(len(candidate.similar_users)),
        math.log(_odds(positives, impressions)),
    )


def _user_features(user: UserEvidence) -> tuple[float, ...]:
    """The last four of `EVIDENCE_FEATURES`, which are the same for all candidates."""
    surprise = recent_surprise = recent_clicks = recent_weight = 0.0
    for past in user.recent:  # oldest first: each event discounts all earlier ones
        fresh = _surprise(past)
        surprise += fresh
        recent_surprise = recent_surprise * _FADE + fresh
        recent_clicks = recent_clicks * _FADE + past.positive
        recent_weight = recent_weight * _FADE + 1.0
    return (
        surprise / (len(user.recent) + PRIOR_SURPRISE),
        recent_surprise / (recent_weight + PRIOR_SURPRISE),
        math.log(_odds(recent_clicks, recent_weight)),
        math.log1p(len(user.recent)),
    )


def _surprise(past: PastItem) -> float:
    """1 for a click, 0 for none, minus the item's current click rate; within ±1."""
    expected = (past.item.positives + PRIOR_IMPRESSIONS * PRIOR_RATE) / (past.item.impressions + PRIOR_IMPRESSIONS)
    return past.positive - expected


def _odds(positives: float, impressions: float) -> float:
    misses = impressions - positives + PRIOR_IMPRESSIONS * (1 - PRIOR_RATE)
    return (positives + PRIOR_IMPRESSIONS * PRIOR_RATE) / max(misses, 1e-3)


_FADE: Final = 0.5 ** (1 / RECENT_HALF_LIFE)


def shrunk_logit(positives: float | Features, impressions: float | Features) -> Features:
    """Log-odds of a click rate, shrunk towards the prior where there are few impressions."""
    clicks = np.asarray(positives, np.float32) + PRIOR_IMPRESSIONS * PRIOR_RATE
    misses = (
        np.asarray(impressions, np.float32) - np.asarray(positives, np.float32) + PRIOR_IMPRESSIONS * (1 - PRIOR_RATE)
    )
    return np.asarray(np.log(clicks / np.maximum(misses, 1e-3)), np.float32)
