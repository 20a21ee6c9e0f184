"""`exitstream train --backbone`, from a tiny checkpoint to the explanation of a score."""

import json
import re

import pytest
import torch
from own_data import write_own_data
from tiny_checkpoint import write_checkpoint
from typer.testing import CliRunner

from cli.main import app
from event_data.load import load_log
from models.bundle import TRAINING, Bundle
from models.golden_check import check_golden
from models.prompt_template import WORDS
from models.text import item_text
from runtime.errors import CheckpointError, PromptTemplateError


def _run(*words):
    result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of one's own data."""
    return write_own_data(tmp_path_factory.mktemp("data"), 1_500)


@pytest.mark.slow
def test_a_bundle_of_a_checkpoint_trains_loads_and_explains_itself_in_words(data, tmp_path):
    """The command says the cost first; the bundle gives its golden scores; its prompts show titles."""
    log = load_log(data)
    titles = [item_text(item.title, item.attributes) for item in log.items]
    checkpoint, out = write_checkpoint(tmp_path / "checkpoint", titles), tmp_path / "bundle"
    options = ("--layers", 2, "--exit-after", "1,2", "--lora", 2, "--most-examples", 700, "--examples-in-memory", 0)
    told = _run("train", "--data", data, "--out", out, "--backbone", checkpoint, *options)
    assert "million trained" in told
    assert re.search(r"exit heads: 5,600 (to do|of)|5,?600/5,?600", told), "700 candidates in eight epochs"
    assert "its training will take about" in told
    assert told.index("will take") < told.index("exit heads")
    bundle = Bundle.load(out)
    assert check_golden(bundle, tolerance=1e-4) > 1
    assert bundle.model.backbone.embed_tokens.weight.dtype == torch.float32

    last = log.interactions[-1]
    title = next(item.title for item in log.items if item.item_id == last.item_id)
    request = {"type": "impression-request", "request_id": "r", "user_id": last.user_id}
    request |= {"candidate_item_ids": [last.item_id], "created_time_ms": last.event_time_ms}
    (tmp_path / "request.json").write_text(json.dumps(request))
    shown = _run("score", tmp_path / "request.json", "--bundle", out, "--data", data)
    assert title in " ".join(shown.split())
    assert bundle.template == WORDS
    assert "    Will they like it? ⟨statistics⟩" in [line.rstrip() for line in shown.splitlines()]


def test_a_prompt_that_cannot_be_is_told_before_anything_long(data, tmp_path):
    """A file's placeholder, and limits that its own words exceed."""
    prompt = tmp_path / "prompt.toml"
    prompt.write_text('question = "{mood}{statistics}"')
    with pytest.raises(PromptTemplateError, match=r"prompt\.toml: question .*no \{mood\}"):
        _run("train", "--data", data, "--out", tmp_path / "bundle", "--prompt", prompt)
    prompt.write_text("[limits]\nprefix_tokens = 4")
    with pytest.raises(PromptTemplateError, match="prefix_tokens 4 is too low"):
        _run("train", "--data", data, "--out", tmp_path / "bundle", "--prompt", prompt)


@pytest.mark.slow
def test_examples_that_may_not_stay_in_memory_go_to_the_bundles_folder(data, tmp_path):
    """Where they cannot be written, the line says so and where."""
    out = tmp_path / "bundle"
    out.mkdir()
    (out / TRAINING).write_text("no folder")
    with pytest.raises(CheckpointError, match=r"cannot keep the training examples in .*bundle/\.training/examples"):
        _run("train", "--data", data, "--out", out, "--most-examples", 50, "--examples-in-memory", 49)


def test_options_of_a_backbone_without_one_are_refused(tmp_path):
    """They would be ignored otherwise."""
    with pytest.raises(CheckpointError, match="--backbone"):
        _run("train", "--out", tmp_path, "--layers", 2)


def test_a_list_of_exits_that_is_none_is_told(tmp_path):
    """The line shows what a list looks like."""
    with pytest.raises(CheckpointError, match="for example 4,8,12"):
        _run("train", "--out", tmp_path, "--backbone", "x", "--exit-after", "some")
