"""What a bundle gives the graph."""

from __future__ import annotations

from graph_updater.graph.base_embeddings import bundled_base
from models.text import Text


def test_base_embeddings_are_of_their_bundles_space(tiny_bundle):
    """The space is that of the tokenizer too, which makes the base embeddings of new items."""
    base = bundled_base(tiny_bundle.graph, tiny_bundle.text)
    other = bundled_base(tiny_bundle.graph, Text.train(["shoes and trousers"], tiny_bundle.text.vocabulary_size))
    assert base.space == tiny_bundle.space != other.space
