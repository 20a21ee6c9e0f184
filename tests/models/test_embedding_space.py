"""The identity of an embedding space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.bundle_files import GraphPart
from models.embedding_space import embedding_space
from models.graph_base import GraphBase
from models.text import Text

BASE = GraphBase(
    alphas=np.array([0.5, 0.5], np.float32),
    item_ids=["a", "b"],
    item_embeddings=np.eye(2, 3, dtype=np.float32),
    word_vectors=np.ones((400, 3), np.float32),
    word_bias=np.zeros(3, np.float32),
)
TEXT = Text.train(["red shoes", "blue shoes"], 400)


def test_equal_parts_are_one_space():
    """Whoever loads the same bundle finds the same space."""
    space = embedding_space(BASE, TEXT)
    same = replace(BASE, item_embeddings=BASE.item_embeddings.copy())
    assert embedding_space(same, Text.train(["red shoes", "blue shoes"], 400)) == space
    assert len(space) == 12


@pytest.mark.parametrize(
    "change",
    [
        {"alphas": np.array([0.5, 0.6], np.float32)},
        {"item_ids": ["b", "a"]},
        {"item_embeddings": np.eye(2, 3, 1, dtype=np.float32)},
        {"word_vectors": np.full((400, 3), 2, np.float32)},
        {"word_bias": np.full(3, 0.1, np.float32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_other_number_is_another_space(change):
    """Embeddings made of it could not be compared with ours."""
    assert embedding_space(replace(BASE, **change), TEXT) != embedding_space(BASE, TEXT)


def test_another_tokenizer_is_another_space():
    """It would turn the text of a new item into other words, and so into another base embedding."""
    other = Text.train(["red shoes", "blue trousers"], 400)
    assert embedding_space(BASE, other) != embedding_space(BASE, TEXT)


def test_a_bundle_and_its_graph_part_name_one_space(tiny_bundle, tiny_bundle_folder):
    """The updater, which loads the graph part alone, and the worker agree; so does the bundle before it was saved."""
    part = GraphPart.load(tiny_bundle_folder)
    assert part.space == tiny_bundle.space == embedding_space(part.graph, part.text)
