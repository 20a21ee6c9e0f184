"""The graph part of a bundle, which loads without torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
from safetensors.numpy import load_file

from models.bundle_manifest import MANIFEST, reading, verified_manifest
from models.embedding_space import embedding_space
from models.graph_base import GraphBase
from models.prompt_limits import HISTORY_LENGTH, PromptLimits
from models.tensor_file import check_shapes, declared_shapes
from models.text import Text

GRAPH_ARRAYS: Final = ("alphas", "item_embeddings", "word_vectors", "word_bias")
_MAX_LAYERS: Final = 16
"""Propagation steps: each costs the updater a pass over the graph."""
_ItemId = Annotated[str, msgspec.Meta(min_length=1)]


@dataclass(frozen=True, eq=False)
class GraphPart:
    """The part of a bundle that the graph updater needs; neither torch nor the model's weights are loaded.

    Args:
        graph: base embeddings and layer weights of LightGCN.
        text: the tokenizer.
        version: the model version.
        history_length: past interactions to be kept per user.
    """

    graph: GraphBase
    text: Text
    version: str
    history_length: int = HISTORY_LENGTH

    @cached_property
    def space(self) -> str:
        """Identity of the space of its embeddings (`models.embedding_space`)."""
        return embedding_space(self.graph, self.text)

    @classmethod
    def load(cls, folder: Path) -> GraphPart:
        """Read from a bundle, after checking the hash of every file.

        Raises:
            BundleError: the bundle is missing, corrupt, or of a format that this version cannot read.
        """
        manifest = verified_manifest(folder)
        graph, text = load_graph_and_text(folder)
        with reading(folder, MANIFEST):
            limits = PromptLimits(**manifest.prompt_limits)
        return cls(graph, text, manifest.model_version, limits.history_length)


def load_graph_and_text(folder: Path) -> tuple[GraphBase, Text]:
    """Read the graph's arrays and the tokenizer, without checking hashes.

    Raises:
        BundleError: a file is malformed, or the two do not fit each other.
    """
    with reading(folder, "items.json"):
        item_ids = msgspec.json.decode((folder / "items.json").read_bytes(), type=list[_ItemId])
        if len(set(item_ids)) < len(item_ids):
            raise ValueError("an item is listed twice")
    with reading(folder, "graph.safetensors"):
        graph = _load_graph(folder / "graph.safetensors", item_ids)
    with reading(folder, "tokenizer.json"):
        text = Text.load(folder / "tokenizer.json")
        if text.largest_token_id >= len(graph.word_vectors):
            raise ValueError(f"token {text.largest_token_id} is none of the graph's {len(graph.word_vectors)} words")
    return graph, text


def _load_graph(path: Path, item_ids: list[str]) -> GraphBase:
    declared = declared_shapes(path)
    if set(declared) != set(GRAPH_ARRAYS):
        raise ValueError(f"it holds {sorted(declared)}, expected {sorted(GRAPH_ARRAYS)}")
    dim = max(1, *declared["word_bias"][:1], 0)
    layers = min(max(1, *declared["alphas"][:1], 0), _MAX_LAYERS + 1)
    check_shapes(
        declared,
        {
            "alphas": (layers,),
            "item_embeddings": (len(item_ids), dim),
            "word_vectors": (*declared["word_vectors"][:1], dim),
            "word_bias": (dim,),
        },
    )
    arrays = {name: np.asarray(array, np.float32) for name, array in load_file(str(path)).items()}
    return GraphBase(item_ids=item_ids, **arrays)
