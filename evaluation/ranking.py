"""How good rankings of a whole catalogue are: Recall@k and NDCG@k, as LightGCN's authors measure them.

Every item is ranked for a user but those of the user's training part, which are known. Both figures are means over the
users who have test items. He et al., "LightGCN", SIGIR 2020 (arXiv 2002.02126).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Floats = NDArray[np.float32]
USERS_AT_ONCE: Final = 256
"""So that the scores of all items for them stay below 100 MB for 100,000 items."""


def recall_and_ndcg(
    users: Floats, items: Floats, known: csr_matrix, wanted: csr_matrix, k: int = 20
) -> tuple[float, float]:
    """Recall@k and NDCG@k of the ranking by inner products; NaN if no user has a wanted item.

    Recall is the share of a user's wanted items among the first k. NDCG discounts a hit at place p (from 1) by
    1/log₂(p + 1), and divides by what min(k, number of wanted items) hits in front would give.

    Args:
        users: (users, dim) embeddings.
        items: (items, dim) embeddings.
        known: (users, items) nonzero where the item is not to be ranked for the user.
        wanted: (users, items) nonzero where the item is a hit; disjoint from `known`.
        k: number of places; at most the number of items.
    """
    asked = np.flatnonzero(np.diff(wanted.indptr))
    if not len(asked):
        return float("nan"), float("nan")
    discounts = 1 / np.log2(np.arange(k) + 2)  # (k,)
    best = discounts.cumsum()
    recalls, ndcgs = [], []
    for rows in np.array_split(asked, -(-len(asked) // USERS_AT_ONCE)):
        hits = _hits(users[rows] @ items.T, known[rows], wanted[rows], k)  # (rows, k)
        counts = np.diff(wanted[rows].indptr)
        recalls.append(hits.sum(axis=1) / counts)
        ndcgs.append(hits @ discounts / best[np.minimum(counts, k) - 1])
    return float(np.concatenate(recalls).mean()), float(np.concatenate(ndcgs).mean())


def _hits(scores: Floats, known: csr_matrix, wanted: csr_matrix, k: int) -> NDArray[np.bool_]:
    """Whether each of the first k places (rows, k) is a wanted item."""
    scores[known.nonzero()] = -np.inf
    first = torch.from_numpy(scores).topk(k).indices.numpy()
    hits: NDArray[np.bool_] = np.take_along_axis(wanted.toarray() > 0, first, axis=1)
    return hits
