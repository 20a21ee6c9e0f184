"""How much alike items are by the values that they share: cosines, in which rare values count more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.features import telling_and_known
from worker.state_store.columns import Rows
from worker.state_store.shared_values import NO_VALUE, SharedValues


def cosines_of_values(shared: SharedValues, rows: Rows, compared: int, first: int = 0) -> NDArray[np.float32]:
    """Cosines of items with the leading ones of them; of an item without values they are 0.

    Args:
        shared: the values.
        rows: (items,) may repeat.
        compared: how many leading ones all are compared with.
        first: place of the first value that counts.

    Returns:
        (items, compared).
    """
    values = shared.of_items[rows, first:]
    values = values[:, : int((values != NO_VALUE).sum(axis=1).max(initial=0))]
    there = values != NO_VALUE
    telling, _ = telling_and_known(there, np.maximum(shared.counts[values, 0], 0).astype(np.float64))
    lengths = np.sqrt(np.square(telling).sum(axis=1, keepdims=True))
    telling /= np.where(lengths == 0, 1.0, lengths)
    shared_by_two = np.sort(values[there])
    shared_by_two = np.unique(shared_by_two[1:][shared_by_two[1:] == shared_by_two[:-1]])
    columns = np.searchsorted(shared_by_two, values)
    columns[columns == len(shared_by_two)] = 0
    # What a single one of them has counts in the lengths alone, and on the diagonal.
    kept = there & (shared_by_two[columns] == values) if len(shared_by_two) else np.zeros_like(there)
    item, place = np.nonzero(kept)
    directions = np.zeros((len(rows), len(shared_by_two)), np.float32)  # (items, values that two or more have)
    directions[item, columns[item, place]] = telling[item, place]
    cosines: NDArray[np.float32] = directions @ directions[:compared].T
    np.fill_diagonal(cosines, lengths[:compared] > 0)
    return cosines
