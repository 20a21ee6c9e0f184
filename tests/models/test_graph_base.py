"""The identity of an embedding space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.graph_base import GraphBase

BASE = GraphBase(
    alphas=np.array([0.5, 0.5], np.float32),
    item_ids=["a", "b"],
    item_embeddings=np.eye(2, 3, dtype=np.float32),
    word_vectors=np.ones((4, 3), np.float32),
    word_bias=np.zeros(3, np.float32),
)


def test_equal_bases_are_one_space():
    """Whoever loads the same bundle finds the same space."""
    assert replace(BASE, item_embeddings=BASE.item_embeddings.copy()).space == BASE.space
    assert len(BASE.space) == 12


@pytest.mark.parametrize(
    "change",
    [
        {"alphas": np.array([0.5, 0.6], np.float32)},
        {"item_ids": ["b", "a"]},
        {"item_embeddings": np.eye(2, 3, 1, dtype=np.float32)},
        {"word_vectors": np.full((4, 3), 2, np.float32)},
        {"word_bias": np.full(3, 0.1, np.float32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_other_number_is_another_space(change):
    """Embeddings made of it could not be compared with ours."""
    assert replace(BASE, **change).space != BASE.space
