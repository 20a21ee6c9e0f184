"""The graph part of a bundle, which loads without torch."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from models.bundle_files import GraphPart
from runtime.errors import BundleError


def test_the_graphs_part_is_that_of_the_whole_bundle(tiny_bundle, tiny_bundle_folder):
    """Same version, same embeddings, same tokenizer."""
    part = GraphPart.load(tiny_bundle_folder)

    assert part.version == tiny_bundle.version
    assert list(part.graph.item_ids) == list(tiny_bundle.graph.item_ids)
    np.testing.assert_array_equal(part.graph.item_embeddings, tiny_bundle.graph.item_embeddings)
    assert part.text.encode("title number 7") == tiny_bundle.text.encode("title number 7")


@pytest.mark.parametrize("damaged", ["graph.safetensors", "tokenizer.json", "backbone/model.safetensors"])
def test_a_corrupt_bundle_is_refused_whole(tiny_bundle_folder, tmp_path, damaged):
    """The whole bundle is refused, even if the damaged file is not one that the graph needs."""
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle_folder, folder)
    content = (folder / damaged).read_bytes()
    (folder / damaged).write_bytes(content[:-1])

    with pytest.raises(BundleError, match=f"{damaged} is not what was saved"):
        GraphPart.load(folder)


def test_a_missing_bundle_says_how_to_make_one(tmp_path):
    """The error names the command that trains one."""
    with pytest.raises(BundleError, match="exitstream train"):
        GraphPart.load(tmp_path)
