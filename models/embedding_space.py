"""The identity of an embedding space: of the base embeddings of items known and new, and of their propagation."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from models.graph_base import GraphBase
from models.text import Text


def embedding_space(graph: GraphBase, text: Text) -> str:
    """Identity of the space, 12 hexadecimal digits: embeddings of one space can be compared.

    Args:
        graph: base embeddings and layer weights of LightGCN.
        text: the tokenizer, which turns the texts of items without a trained base embedding into words of `graph`.
    """
    found = hashlib.sha256(json.dumps(list(graph.item_ids)).encode())
    for array in (graph.alphas, graph.item_embeddings, graph.word_vectors, graph.word_bias):
        found.update(np.ascontiguousarray(array, "<f4").tobytes())
    found.update(text.content)
    return found.hexdigest()[:12]
