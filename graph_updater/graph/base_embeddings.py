"""What the model bundle gives the graph: base embeddings, layer weights, x⁽⁰⁾ of new items from their text, and the
length of histories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.embedding_space import embedding_space
from models.graph_base import GraphBase
from models.prompt_limits import HISTORY_LENGTH
from models.text import Text, item_text

TextMap = Callable[[str | None, Mapping[str, str]], NDArray[np.float32]]
"""Title and attributes of an item to its x⁽⁰⁾: (d,) float32."""


@dataclass(frozen=True)
class BaseEmbeddings:
    """x⁽⁰⁾ of the items and users in the training data, and how to compute that of new items.

    Attributes:
        item_ids: the items that have a trained x⁽⁰⁾.
        item_vectors: (items, d) float32.
        alphas: the layer weights α₀ … α_L.
        user_ids: the users that have a trained x⁽⁰⁾; others begin with 0.
        user_vectors: (users, d) float32; None if there are none.
        text_map: computes x⁽⁰⁾ of items without a trained one from their text; None leaves them 0.
        space: identity of all this, told with every embedding made of it; empty if it has none.
        history_length: interactions kept per user. Embeddings do not depend on it, so it is no part of the space.
    """

    item_ids: Sequence[str]
    item_vectors: NDArray[np.float32]
    alphas: tuple[float, ...]
    user_ids: Sequence[str] = ()
    user_vectors: NDArray[np.float32] | None = None
    text_map: TextMap | None = None
    space: str = ""
    history_length: int = HISTORY_LENGTH

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return int(self.item_vectors.shape[1])


def bundled_base(graph: GraphBase, text: Text, history_length: int = HISTORY_LENGTH) -> BaseEmbeddings:
    """Base embeddings from a bundle's `graph`; the bundle's tokenizer reads the texts of new items."""

    def text_map(title: str | None, attributes: Mapping[str, str]) -> NDArray[np.float32]:
        embedding = graph.from_text(text.encode(item_text(title, attributes)))
        return np.zeros(graph.dim, np.float32) if embedding is None else embedding

    return BaseEmbeddings(
        item_ids=graph.item_ids,
        item_vectors=graph.item_embeddings,
        alphas=tuple(graph.alphas.tolist()),
        text_map=text_map,
        space=embedding_space(graph, text),
        history_length=history_length,
    )
