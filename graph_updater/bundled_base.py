"""The model bundle's graph part as the engine takes it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from graph_updater.base_embeddings import BaseEmbeddings
from models.graph_base import GraphBase
from models.text import Text, item_text


def bundled_base(graph: GraphBase, text: Text) -> BaseEmbeddings:
    """Base embeddings from a bundle's `graph` and its tokenizer, which new items' texts are read with."""

    def text_map(title: str | None, attributes: Mapping[str, str]) -> NDArray[np.float32]:
        embedding = graph.from_text(text.encode(item_text(title, attributes)))
        return np.zeros(graph.dim, np.float32) if embedding is None else embedding

    return BaseEmbeddings(
        item_ids=graph.item_ids,
        item_vectors=graph.item_embeddings,
        alphas=tuple(graph.alphas.tolist()),
        text_map=text_map,
    )
