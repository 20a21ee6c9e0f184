"""The graph part of a bundle, which loads without torch."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from bundle_forgery import edit_json, sign

from models.bundle import MANIFEST, Bundle
from models.bundle_files import GraphPart
from runtime.errors import BundleError


def test_the_graphs_part_is_that_of_the_whole_bundle(tiny_bundle, tiny_bundle_folder):
    """Same version, same embeddings, same tokenizer."""
    part = GraphPart.load(tiny_bundle_folder)

    assert part.version == tiny_bundle.version
    assert list(part.graph.item_ids) == list(tiny_bundle.graph.item_ids)
    np.testing.assert_array_equal(part.graph.item_embeddings, tiny_bundle.graph.item_embeddings)
    assert part.text.encode("title number 7") == tiny_bundle.text.encode("title number 7")


def test_updater_and_worker_read_the_same_length_of_histories(tiny_bundle, tmp_path):
    """Chosen at the training, part of the version."""
    longer = replace(tiny_bundle, limits=replace(tiny_bundle.limits, history_length=200)).save(tmp_path / "longer")

    assert GraphPart.load(tmp_path / "longer").history_length == 200
    assert Bundle.load(tmp_path / "longer").limits.history_length == 200
    assert longer.version != tiny_bundle.version


def test_bundles_of_earlier_formats_have_histories_of_fifty(tiny_bundle_folder, tmp_path):
    """Up to format 5 nobody could choose, and no bundle told it."""
    folder = shutil.copytree(tiny_bundle_folder, tmp_path / "bundle")
    limits = json.loads((folder / MANIFEST).read_text())["prompt_limits"]
    edit_json(
        folder / MANIFEST, format_version=5, prompt_limits={k: v for k, v in limits.items() if k != "history_length"}
    )
    sign(folder)

    assert GraphPart.load(folder).history_length == Bundle.load(folder).limits.history_length == 50


@pytest.mark.parametrize("part", [GraphPart, Bundle])
def test_a_bundle_without_any_history_is_refused(tiny_bundle_folder, tmp_path, part):
    """In one line that says why: nothing could be computed from it."""
    folder = shutil.copytree(tiny_bundle_folder, tmp_path / "bundle")
    limits = json.loads((folder / MANIFEST).read_text())["prompt_limits"]
    edit_json(folder / MANIFEST, prompt_limits={**limits, "history_length": 0})
    sign(folder)

    with pytest.raises(BundleError, match=r"bundle\.json .*history_length is 0; 1 to 10000 past"):
        part.load(folder)


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
