"""Saving and loading bundles; damaged and foreign folders are refused with a one-line error."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from bundle_forgery import sign

from models.bundle import MANIFEST, Bundle
from models.bundle_manifest import FORMAT_VERSION, FORMAT_WITHOUT_SUMS, PROMPT
from models.evidence import CandidateEvidence, Evidence, ItemFacts, UserEvidence
from models.prompt_template import COMPACT, TERSE, WORDS
from runtime.errors import BundleError


@pytest.fixture
def folder(tiny_bundle, tmp_path):
    """A bundle of the test's own, free to be damaged."""
    tiny_bundle.save(tmp_path / "bundle")
    return tmp_path / "bundle"


def edit_manifest(folder, **changes):
    """Change entries of the manifest; None takes one out."""
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    kept = {name: entry for name, entry in manifest.items() if entry is not None}
    (folder / MANIFEST).write_text(json.dumps(kept))


def test_a_loaded_bundle_is_the_saved_one(tiny_bundle, folder):
    """Weights, calibration, graph, limits, version and tokenizer are the same after saving and loading."""
    loaded = Bundle.load(folder)
    for name, tensor in tiny_bundle.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert loaded.calibration.to_json() == tiny_bundle.calibration.to_json()
    np.testing.assert_array_equal(loaded.graph.item_embeddings, tiny_bundle.graph.item_embeddings)
    assert loaded.graph.item_ids == tiny_bundle.graph.item_ids
    assert (loaded.limits, loaded.version) == (tiny_bundle.limits, tiny_bundle.version)
    assert loaded.text.encode("a title") == tiny_bundle.text.encode("a title")


def test_the_version_depends_on_content_alone(tiny_bundle, tmp_path):
    """Saving a model twice gives the same version; another calibration or other limits give another."""
    again = tiny_bundle.save(tmp_path / "again")
    calibration = replace(tiny_bundle.calibration, tolerance=0.2)
    other = replace(tiny_bundle, calibration=calibration).save(tmp_path / "other")
    assert again.version == tiny_bundle.version
    shorter = replace(tiny_bundle, limits=replace(tiny_bundle.limits, recent_items=1)).save(tmp_path / "shorter")
    assert len({tiny_bundle.version, other.version, shorter.version}) == 3


def test_a_bundle_carries_the_words_of_its_prompts(tiny_bundle, tmp_path):
    """Prompts, scores and version depend on them."""
    other = replace(tiny_bundle, template=WORDS).save(tmp_path / "words")
    loaded = Bundle.load(tmp_path / "words")
    assert loaded.template == WORDS
    assert loaded.version == other.version != tiny_bundle.version
    evidence = Evidence(UserEvidence("u"), [CandidateEvidence(ItemFacts("i1"))])
    first, second = (bundle.prompt_builder().build(evidence) for bundle in (tiny_bundle, loaded))
    assert first.tokens < second.tokens


def test_only_a_bundle_whose_template_sums_lines_is_of_the_latest_format(tiny_bundle, tmp_path):
    """Programs from before that go on reading all others, and say of it that they are too old."""
    for template, number in ((WORDS, FORMAT_WITHOUT_SUMS), (COMPACT, FORMAT_VERSION)):
        replace(tiny_bundle, template=template).save(tmp_path / template.name)
        manifest = json.loads((tmp_path / template.name / MANIFEST).read_text())
        assert manifest["format_version"] == number
        assert Bundle.load(tmp_path / template.name).template == template


def test_bundles_of_earlier_formats_have_the_terse_prompt(folder):
    """Up to format 3 there was no other, and no file that told it."""
    (folder / PROMPT).unlink()
    edit_manifest(folder, format_version=3)
    sign(folder)
    assert Bundle.load(folder).template == TERSE


def test_a_template_that_is_none_is_told_by_its_placeholder(folder):
    """In one line with the bundle and the file."""
    content = json.loads((folder / PROMPT).read_text()) | {"candidate": "{item.__class__}{title}"}
    (folder / PROMPT).write_text(json.dumps(content))
    sign(folder)
    with pytest.raises(BundleError, match=r"prompt\.json.*candidate .*brace that is no placeholder"):
        Bundle.load(folder)


def test_limits_that_leave_no_room_for_the_words_are_refused(folder):
    """A bundle's numbers are no more trusted than its words."""
    limits = json.loads((folder / MANIFEST).read_text())["prompt_limits"] | {"suffix_tokens": 3}
    edit_manifest(folder, prompt_limits=limits)
    sign(folder)
    with pytest.raises(BundleError, match="suffix_tokens 3 is too low"):
        Bundle.load(folder)


def test_nothing_is_pickled(folder):
    """The folder holds safetensors, JSON and nothing else."""
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_saving_replaces_an_older_bundle_and_leaves_nothing_unfinished(tiny_bundle, folder):
    """A second save to the same folder takes the first one's place."""
    (folder / "left-over.json").write_text("{}")
    tiny_bundle.save(folder)
    assert not (folder / "left-over.json").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_files_that_are_not_a_bundle_are_not_overwritten(tiny_bundle, tmp_path):
    """A mistyped folder keeps its content."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="files that are not a bundle"):
        tiny_bundle.save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_missing_bundle_says_how_to_make_one(tmp_path):
    """The error names the command that trains one."""
    with pytest.raises(BundleError, match="exitstream train"):
        Bundle.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["exits.safetensors", "backbone/model.safetensors", "tokenizer.json", "items.json"])
def test_a_changed_file_is_named(folder, name):
    """One flipped byte is found before anything is used."""
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(bytes(content))
    with pytest.raises(BundleError, match=name):
        Bundle.load(folder)


def test_a_missing_file_is_named(folder):
    """A half-copied bundle is refused."""
    (folder / "graph.safetensors").unlink()
    with pytest.raises(BundleError, match=r"graph\.safetensors is missing"):
        Bundle.load(folder)


def test_a_newer_format_is_refused(folder):
    """A format newer than this program reads is an error that names it."""
    edit_manifest(folder, format_version=99)
    with pytest.raises(BundleError, match="format 99"):
        Bundle.load(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format_version": 1}'])
def test_a_corrupt_manifest_is_refused(folder, content):
    """Half a manifest is reported as corrupt."""
    (folder / MANIFEST).write_text(content)
    with pytest.raises(BundleError, match="corrupt"):
        Bundle.load(folder)


def test_settings_of_another_program_version_are_refused(folder):
    """Prompt limits that this program does not know end in one line, not in a traceback."""
    edit_manifest(folder, prompt_limits={"astrology": 3})
    sign(folder)
    with pytest.raises(BundleError, match="astrology"):
        Bundle.load(folder)
