"""The numbers beside the words: what the graph score is made of and what the `statistics` soft token holds.

`graph_features` needs no retrieval, so that a backlog can be answered from it at memory speed; `evidence_features` sums
up what retrieval found. Rates are shrunk towards a prior (`PRIOR_IMPRESSIONS` imagined impressions at `PRIOR_RATE`) and
given as logits, counts as logarithms, so that all of them stay within a few units of zero.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.evidence import CandidateEvidence, UserEvidence, Vector

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
    "past_similarity",
    "past_known",
    "neighbour_vote",
    "neighbour_count",
    "similar_item_rate",
    "recent_rate",
    "recent_count",
)
FEATURES: Final = GRAPH_FEATURES + EVIDENCE_FEATURES

PRIOR_IMPRESSIONS: Final = 4.0
PRIOR_RATE: Final = 0.5
RECENT_WINDOW: Final = 8

Features = NDArray[np.float32]


def graph_features(
    user_embedding: Vector | None,
    user_counts: tuple[int, int],
    item_embeddings: NDArray[np.float32],
    item_counts: NDArray[np.float32],
) -> Features:
    """Features of many candidates for one user.

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


def evidence_features(user: UserEvidence, candidate: CandidateEvidence) -> Features:
    """What retrieval found for one candidate, as numbers of shape (len(EVIDENCE_FEATURES),)."""
    past_weights = np.array([max(past.similarity, 0.0) for past in candidate.past], np.float32)
    past_votes = np.array([1.0 if past.positive else -1.0 for past in candidate.past], np.float32)
    user_weights = np.array([max(near.similarity, 0.0) for near in candidate.similar_users], np.float32)
    user_votes = np.array([1.0 if near.positive else -1.0 for near in candidate.similar_users], np.float32)
    near_impressions = sum(near.item.impressions for near in candidate.similar_items)
    near_positives = sum(near.item.positives for near in candidate.similar_items)
    recent = user.recent[-RECENT_WINDOW:]
    recent_positives = sum(past.positive for past in recent)
    return np.array(
        (
            _vote(past_weights, past_votes),
            past_weights.max(initial=0.0),
            bool(candidate.past),
            _vote(user_weights, user_votes),
            np.log1p(len(user_votes)),
            shrunk_logit(near_positives, near_impressions),
            shrunk_logit(recent_positives, len(recent)),
            np.log1p(len(recent)),
        ),
        np.float32,
    )


def shrunk_logit(positives: float | Features, impressions: float | Features) -> Features:
    """Log-odds of a click rate, shrunk towards the prior where there are few impressions."""
    clicks = np.asarray(positives, np.float32) + PRIOR_IMPRESSIONS * PRIOR_RATE
    misses = (
        np.asarray(impressions, np.float32) - np.asarray(positives, np.float32) + PRIOR_IMPRESSIONS * (1 - PRIOR_RATE)
    )
    return np.asarray(np.log(clicks / np.maximum(misses, 1e-3)), np.float32)


def _vote(weights: Features, votes: Features) -> float:
    """Similarity-weighted mean vote, shrunk towards 0 by one imagined undecided vote."""
    return float((weights * votes).sum() / (weights.sum() + 1.0))
