"""Pre-trained against random start: the same in everything but the weights."""

from dataclasses import replace

import pytest
import torch

from benchmarks.ablation_tables import start
from benchmarks.pretrained_start import start_figures
from benchmarks.random_start import random_start
from event_data.synthetic import SyntheticSize, synthetic_log
from models.checkpoint import open_checkpoint
from tests.support.tiny_checkpoint import write_checkpoint
from training.presets import COMPACT_PRETRAINED, DEMO
from training.pretrained import PretrainedOptions
from training.progress import Silent

LOG = synthetic_log(SyntheticSize(users=30, items=30, sessions=80, shown=8))


@pytest.fixture
def options(tmp_path):
    """A checkpoint of three layers, of which two are kept."""
    folder = write_checkpoint(tmp_path / "checkpoint", [item.title for item in LOG.items])
    return PretrainedOptions(str(folder), layers=2, lora=2)


def test_layers_and_tokenizer_are_those_of_the_checkpoint(options, tmp_path):
    """Only the weights differ, and all of them train."""
    start = random_start(options, tmp_path / "random", seed=0)
    theirs, ours = open_checkpoint(options.where, options.layers), open_checkpoint(start.where, start.layers)
    title = LOG.items[0].title
    assert ours.text.encode(title) == theirs.text.encode(title)
    assert ours.text.start_tokens == theirs.text.start_tokens
    weights = dict(theirs.model.named_parameters())
    assert {name: part.shape for name, part in ours.model.named_parameters()} == {
        name: part.shape for name, part in weights.items()
    }
    layer = "layers.0.self_attn.q_proj.weight"
    assert not torch.equal(dict(ours.model.named_parameters())[layer], weights[layer])
    assert start.lora == 0


@pytest.mark.slow
def test_both_starts_are_scored_by_every_head(options):
    """With the difference at full depth; the table shows all of it."""
    graph = replace(DEMO.graph, dim=8, steps=20)
    preset = replace(COMPACT_PRETRAINED, graph=graph, most_examples=100, most_held_out=60)
    figures = start_figures(LOG, options, preset, 40, Silent())
    assert figures["layers"] == [1, 2]
    for name in ("random", "pretrained"):
        assert len(figures[name]["auc"]) == 2
        assert " | ".join(f"{value:.4f}" for value in figures[name]["auc"]) in start({"dataset": "d", **figures})
    gained = figures["pretrained_minus_random"]
    assert gained["difference"] == pytest.approx(figures["pretrained"]["auc"][-1] - figures["random"]["auc"][-1])
    assert gained["low"] < gained["difference"] < gained["high"]
