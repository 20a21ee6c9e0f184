"""The trained part of LightGCN: base embeddings of items, layer weights, and a map from words to base embeddings.

Users have no base embedding (x⁽⁰⁾ = 0): their embedding comes from the items they clicked, so a new user is like any
other. An item without a trained base embedding gets one from its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class GraphBase:
    """What is trained offline and does not change while serving.

    Args:
        alphas: (layers + 1,) weight of each propagation layer in z; the first is that of the base embeddings.
        item_ids: items with a trained base embedding.
        item_embeddings: (items, dim) x⁽⁰⁾, float32.
        word_vectors: (vocabulary, dim) weight of each token of an item's text.
        word_bias: (dim,) intercept of the map from text.

    Raises:
        ValueError: the shapes do not match, or an array holds numbers that are not finite.
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
        """Dimension of the embeddings."""
        return int(self.word_bias.shape[-1])

    @property
    def layers(self) -> int:
        """Number of propagation steps."""
        return len(self.alphas) - 1

    def from_text(self, token_ids: Sequence[int]) -> Floats | None:
        """The base embedding (dim,) that an item's text gives; None without text."""
        tokens = text_tokens(token_ids)
        if not len(tokens):
            return None
        embedding: Floats = self.word_vectors[tokens].sum(axis=0) / np.sqrt(len(tokens)) + self.word_bias
        return embedding.astype(np.float32)


def text_tokens(token_ids: Sequence[int]) -> NDArray[np.int64]:
    """The distinct tokens of a text. Each counts 1/√(number of them) in its base embedding."""
    return np.unique(np.asarray(token_ids, np.int64))
