"""What LightGCN needs to start from: the items' base embeddings, the layers' weights, a map from words to embeddings.

Users have no base embedding (x⁽⁰⁾ = 0): theirs comes from the items they clicked alone, so a user who appeared a second
ago is like any other. An item without a fitted base embedding gets one from its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class GraphBase:
    """The offline part of the graph's embeddings.

    Args:
        alphas: (layers + 1,) weight of each propagation layer in z, the base embeddings' first.
        item_ids: items whose base embeddings were fitted.
        item_embeddings: (items, dim) x⁽⁰⁾, float32.
        word_vectors: (vocabulary, dim) what each token of an item's text adds to its base embedding.
        word_bias: (dim,) the base embedding of a text of unknown words.

    Raises:
        ValueError: the parts' shapes do not fit each other, or hold numbers that are not finite.
    """

    alphas: Floats
    item_ids: Sequence[str]
    item_embeddings: Floats
    word_vectors: Floats
    word_bias: Floats

    def __post_init__(self) -> None:
        shapes = {
            "alphas": (len(self.alphas),),
            "item_embeddings": (len(self.item_ids), self.dim),
            "word_vectors": (len(self.word_vectors), self.dim),
            "word_bias": (self.dim,),
        }
        for name, shape in shapes.items():
            part: Floats = getattr(self, name)
            if part.shape != shape:
                raise ValueError(f"graph base: {name} has shape {part.shape}, expected {shape}")
            if not np.isfinite(part).all():
                raise ValueError(f"graph base: {name} holds numbers that are not finite")

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return int(self.word_bias.shape[-1])

    @property
    def layers(self) -> int:
        """Number of propagation steps."""
        return len(self.alphas) - 1

    def from_text(self, token_ids: Sequence[int]) -> Floats | None:
        """The base embedding (dim,) of an item known by its text alone; None without any text."""
        tokens = text_tokens(token_ids)
        if not len(tokens):
            return None
        embedding: Floats = self.word_vectors[tokens].sum(axis=0) / np.sqrt(len(tokens)) + self.word_bias
        return embedding.astype(np.float32)


def text_tokens(token_ids: Sequence[int]) -> NDArray[np.int64]:
    """The distinct tokens of a text: what its base embedding is made of, each scaled by 1/√count."""
    return np.unique(np.asarray(token_ids, np.int64))
