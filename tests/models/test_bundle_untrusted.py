"""A bundle comes from elsewhere: whatever stands in it, loading ends in a bundle or in one line."""

from __future__ import annotations

import json
import os
import shutil
import struct

import pytest
from bundle_forgery import TensorFile, edit_json, sign
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.bundle import Bundle
from models.bundle_files import GraphPart
from models.bundle_manifest import ALL_FILES, MANIFEST, MAX_MANIFEST_BYTES
from runtime.errors import BundleError

TENSORS = ("backbone/model.safetensors", "exits.safetensors", "graph.safetensors")
JSON_FILES = tuple(sorted(name for name in {*ALL_FILES, MANIFEST} if name.endswith(".json")))
ODD_VALUES = (
    *(None, True, "", "x", "../../etc/passwd", -1, 0, 1, 3, 0.5, 10**9, 2**63, 10**30, 1e308, [], {}),
    *([[]], [None] * 3, {"a": 1}, ["x"], [0.0], "1" * 5_000),
)
many = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def folder(tiny_bundle_folder, tmp_path):
    """A bundle of the test's own, free to be damaged."""
    return fresh(tiny_bundle_folder, tmp_path / "bundle")


def fresh(source, folder):
    """A new copy, in place of what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(source, folder)


def refusal(folder, load=Bundle.load):
    """The one line in which loading ends."""
    with pytest.raises(BundleError) as raised:
        load(folder)
    line = str(raised.value)
    assert "\n" not in line
    assert str(folder) in line
    assert len(line) < 1_000
    return line


def both_end_well(folder):
    """Loading gives a bundle or one line, in the worker and in the updater."""
    for load in (Bundle.load, GraphPart.load):
        try:
            text = load(folder).text
        except BundleError as error:
            assert "\n" not in str(error)  # noqa: PT017 - any number of other outcomes is right as well
        else:
            text.encode("a title")


@many
@given(data=st.data())
def test_any_bytes_in_any_file_end_in_one_line(tiny_bundle_folder, tmp_path, data):
    """Bytes overwritten, cut off or added, hashes made to fit or not: nothing but a `BundleError` is raised."""
    folder = fresh(tiny_bundle_folder, tmp_path / "bundle")
    path = folder / data.draw(st.sampled_from(sorted({*ALL_FILES, MANIFEST})))
    content = path.read_bytes()
    # Half of the changes hit the first bytes, where lengths and headers are.
    start = data.draw(st.integers(0, 200) | st.integers(0, len(content)))
    removed = data.draw(st.sampled_from([0, 1, 4, 8, len(content)]))
    path.write_bytes(content[:start] + data.draw(st.binary(max_size=16)) + content[start + removed :])
    if path.name != MANIFEST and data.draw(st.booleans()):
        sign(folder)
    both_end_well(folder)


@many
@given(data=st.data())
def test_any_value_in_any_json_ends_in_one_line(tiny_bundle_folder, tmp_path, data):
    """A value replaced by one of another type or size, or taken out: nothing but a `BundleError` is raised."""
    folder = fresh(tiny_bundle_folder, tmp_path / "bundle")
    path = folder / data.draw(st.sampled_from(JSON_FILES))
    content = json.loads(path.read_text())
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        deeper = isinstance(place[key], dict | list) and len(place[key])
        if not deeper or data.draw(st.booleans()):
            break
        place = place[key]
    if data.draw(st.integers(0, 4)) == 0:
        del place[key]
    else:
        place[key] = data.draw(st.sampled_from(ODD_VALUES))
    path.write_text(json.dumps(content))
    if path.name != MANIFEST:
        sign(folder)
    both_end_well(folder)


@many
@given(data=st.data())
def test_any_header_of_arrays_ends_in_one_line(tiny_bundle_folder, tmp_path, data):
    """Other names, types, shapes and places of arrays, hashes made to fit: nothing but a `BundleError` is raised."""
    folder = fresh(tiny_bundle_folder, tmp_path / "bundle")
    path = folder / data.draw(st.sampled_from(TENSORS))
    file = TensorFile.read(path)
    name = data.draw(st.sampled_from(sorted(set(file.header) - {"__metadata__"})))
    entry = file.header[name]
    change = data.draw(st.sampled_from(["name", "dtype", "shape", "data_offsets", "gone"]))
    if change == "name":
        file.header[data.draw(st.sampled_from(["x", "", "layers.99.x", "a" * 1_000]))] = file.header.pop(name)
    elif change == "gone":
        del file.header[name]
    elif change == "dtype":
        entry["dtype"] = data.draw(st.sampled_from(["F16", "BF16", "I32", "U8", "BOOL", "F64", "F8_E4M3", "object"]))
    else:
        sizes = st.sampled_from([0, 1, 2, 7, 64, 10**13, 2**62, 2**64 - 1, 2**70, -1])
        entry[change] = data.draw(st.lists(sizes, max_size=4) | st.permutations(entry[change]))
    file.write(path)
    sign(folder)
    both_end_well(folder)


@pytest.mark.parametrize("key", ["auto_map", "quantization_config", "_attn_implementation", "attn_implementation"])
def test_a_configuration_that_leads_to_code_is_refused(folder, key, monkeypatch):
    """Keys that make the library import or fetch something are named; nobody is asked whether to run it."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run code"))
    edit_json(folder / "backbone/config.json", model_type="unheard-of", **{key: {"AutoConfig": "run.Me"}})
    sign(folder)
    assert key in refusal(folder)


def test_an_unknown_family_is_refused_without_asking(folder):
    """A model type that is not supported is named."""
    edit_json(folder / "backbone/config.json", model_type="unheard-of")
    sign(folder)
    assert "'unheard-of'; supported are llama" in refusal(folder)


def test_a_missing_backbone_is_looked_for_nowhere_else(folder, monkeypatch):
    """Without `backbone/` the line says so; the name is not asked of any hub."""
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("connected somewhere"))
    shutil.rmtree(folder / "backbone")
    assert "backbone/config.json is missing" in refusal(folder)
    sign(folder)
    assert "does not list backbone/config.json" in refusal(folder)


@pytest.mark.parametrize("name", ["backbone/pytorch_model.bin", "model.pkl", "backbone/modeling.py", "backbone/a/b.pt"])
def test_further_files_are_refused(folder, name):
    """Pickles, code or anything else beside the files of a bundle is named, whether the manifest lists it or not."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"cos\nsystem\n")
    assert f"'{name}' is no part of a bundle" in refusal(folder, GraphPart.load)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"bytes": 11, "sha256": "0" * 64}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert f"lists '{name}', which is no part of a bundle" in refusal(folder, GraphPart.load)


@pytest.mark.parametrize("name", ["../secret.json", "/etc/passwd", "backbone/../../secret.json"])
def test_names_outside_the_folder_are_not_read(folder, name):
    """A manifest that lists a path elsewhere is refused before anything is opened there."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert "no part of a bundle" in refusal(folder)


@pytest.mark.parametrize("name", ["items.json", "backbone"])
def test_links_out_of_the_folder_are_refused(folder, name):
    """A file, or a folder of files, that lies elsewhere is not read even if its hash fits."""
    shutil.move(folder / name, folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")
    line = refusal(folder)
    assert "link" in line or "no part of a bundle" in line


def test_a_link_to_the_whole_folder_is_followed(folder):
    """`current -> v3` is how bundles are switched."""
    (folder.parent / "current").symlink_to(folder)
    assert Bundle.load(folder.parent / "current").version == Bundle.load(folder).version


def test_a_pipe_in_place_of_a_file_blocks_nothing(folder):
    """What is no regular file counts as missing."""
    (folder / "items.json").unlink()
    os.mkfifo(folder / "items.json")
    assert "items.json is missing" in refusal(folder)


def test_the_model_version_is_that_of_the_files(folder):
    """A manifest that borrows another bundle's version is refused: states would be taken for another model's."""
    edit_json(folder / MANIFEST, model_version="0123456789ab")
    assert "model_version" in refusal(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("hidden_size", 10**9), ("vocab_size", 10**9), ("num_hidden_layers", 10**9), ("intermediate_size", 1 << 24)),
        *(("num_attention_heads", 4_000), ("head_dim", 1 << 20), ("hidden_size", 64), ("num_hidden_layers", 5)),
        *(("hidden_size", 32.5), ("vocab_size", "326"), ("rms_norm_eps", "tiny"), ("hidden_act", "os.system")),
    ],
)
def test_sizes_that_the_weights_do_not_have_are_refused(folder, key, value, monkeypatch):
    """Before any model is built, the configuration is compared with bounds and with the weights on disk."""
    monkeypatch.delattr("models.saved_backbone.Decoder")
    edit_json(folder / "backbone/config.json", **{key: value})
    sign(folder)
    assert "KeyError" not in refusal(folder)


def test_layers_left_over_are_refused(folder):
    """A configuration with fewer layers than the weights would give other scores than those that were evaluated."""
    edit_json(folder / "backbone/config.json", num_hidden_layers=3)
    edit_json(folder / "exits.json", exit_layers=[1, 2, 3])
    sign(folder)
    assert "layers.3." in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"embedding_dim": 10**11, "soft_width": 10**11}, "soft.user.weight has shape (32, 8)"),
        ({"soft_width": 10**11}, "the model is for embeddings of 8 in rows of 100000000000"),
    ],
)
def test_widths_that_the_parts_do_not_have_are_refused(folder, changes, said):
    """Soft tokens are compared with the graph and with the weights on disk before anything is allocated for them."""
    edit_json(folder / "exits.json", **changes)
    sign(folder)
    assert said in refusal(folder)


def test_a_header_larger_than_the_file_is_refused(folder):
    """The length that stands first in a file of arrays is not believed."""
    path = folder / "graph.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])
    sign(folder)
    assert "graph.safetensors" in refusal(folder, GraphPart.load)


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(folder, name, number):
    """One NaN or infinity among the weights would make every score, or every embedding, one."""
    file = TensorFile.read(folder / name)
    file.numbers = struct.pack("<f", number) + file.numbers[4:]
    file.write(folder / name)
    sign(folder)
    assert "not finite" in refusal(folder)


def test_weights_left_out_are_not_made_up(folder):
    """A weight that is missing is named; the library alone would start it at random."""
    path = folder / "backbone/model.safetensors"
    file = TensorFile.read(path)
    file.header["another"] = file.header.pop("layers.1.input_layernorm.weight")
    file.write(path)
    sign(folder)
    assert "another, layers.1.input_layernorm.weight" in refusal(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("slopes", ["1", "1", "1"]), ("tolerance", None), ("base_threshold", 7.0), ("floor_threshold", -1.0)),
        *(("graph_scale", [0.0] * 16), ("criterion", "guess"), ("frontier", [{"threshold": 0.1}])),
        *(("graph_bias", 10**400), ("slopes", [1.0]), ("frontier", "none"), ("confidence_weights", [[1.0]])),
    ],
)
def test_calibrations_of_other_types_or_ranges_are_refused(folder, key, value):
    """Every field of the calibration has a type and a range."""
    edit_json(folder / "calibration.json", **{key: value})
    sign(folder)
    assert "calibration.json" in refusal(folder)


def test_a_manifest_that_would_not_end_is_refused(folder):
    """One larger than any bundle needs is not read, whatever it says."""
    with (folder / MANIFEST).open("ab") as file:
        file.write(b" " * MAX_MANIFEST_BYTES)
    assert f"{MANIFEST} has more than {MAX_MANIFEST_BYTES} bytes" in refusal(folder)


def test_a_token_beyond_the_embeddings_is_refused(folder):
    """A vocabulary larger than the tables that are looked up in would end in an index error at some request."""
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["zebra"] = 5_000
    (folder / "tokenizer.json").write_text(json.dumps(content))
    sign(folder)
    assert "token 5000" in refusal(folder, GraphPart.load)


def test_a_tokenizer_cannot_ask_for_padding(folder):
    """Padding to a length that the file chooses would cost memory, or the process."""
    padding = {"strategy": {"Fixed": 1 << 20}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
    edit_json(folder / "tokenizer.json", padding={**padding, "pad_to_multiple_of": None})
    sign(folder)
    assert len(GraphPart.load(folder).text.encode("a title")) < 20


def test_an_item_listed_twice_is_refused(folder):
    """Two embeddings for one item: neither can be right."""
    items = json.loads((folder / "items.json").read_text())
    (folder / "items.json").write_text(json.dumps([items[0], *items[:-1]]))
    sign(folder)
    assert "listed twice" in refusal(folder, GraphPart.load)


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("start", ["", '{"format_version": 1, "further": '])
def test_deeply_nested_json_is_refused(folder, name, start):
    """A hundred thousand brackets are no reason to end in a traceback."""
    (folder / name).write_text(start + "[" * 100_000)
    if name != MANIFEST:
        sign(folder)
    refusal(folder)
