"""Click-through rates from the graph alone, for many requests at once: the last rung of the ladder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.calibration import ExitCalibration
from models.features import Features, graph_features
from worker.state_store.rows import UNKNOWN_ROW
from worker.state_store.tables import Tables


class GraphScorer:
    """Scores user and items by their embeddings and counts, without retrieval and without the language model.

    Args:
        tables: what is known.
        calibration: turns features into rates.
    """

    def __init__(self, tables: Tables, calibration: ExitCalibration) -> None:
        self._tables = tables
        self._calibration = calibration

    def score(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[NDArray[np.float64]]:
        """Rates for each user's items, known or not.

        Args:
            asked: user ids with item ids.

        Returns:
            An array (items,) for each.
        """
        if not asked:
            return []
        features = [self._features(user_id, item_ids) for user_id, item_ids in asked]
        rates = self._calibration.graph_ctr(np.concatenate(features))
        return np.split(rates, np.cumsum([len(part) for part in features])[:-1])

    def _features(self, user_id: str, item_ids: Sequence[str]) -> Features:
        users, items = self._tables.users, self._tables.items
        user = users.ids.row(user_id)
        rows = np.fromiter(map(items.ids.row, item_ids), np.int64, len(item_ids))
        known = rows != UNKNOWN_ROW
        embeddings = np.zeros((len(rows), self._tables.embedding_dim), np.float32)
        counts = np.zeros((len(rows), 2), np.float32)
        embeddings[known] = items.embeddings[rows[known]]  # zeros where an item has none
        counts[known] = items.counts[rows[known], :2]
        if user == UNKNOWN_ROW:
            return graph_features(None, (0, 0), embeddings, counts)
        embedding = users.embeddings[user].astype(np.float32) if users.embedded[user] else None
        impressions, positives = users.counts[user, :2].tolist()
        return graph_features(embedding, (impressions, positives), embeddings, counts)
