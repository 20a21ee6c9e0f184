"""From an event log to a bundle and back to figures."""

from dataclasses import replace

import pytest

from models.bundle import Bundle
from training.evaluate import evaluate
from training.presets import DEMO, STANDARD
from training.progress import Silent
from training.train import preset_for, train


class Recorder:
    """A reporter that remembers what it was told."""

    def __init__(self):
        self.steps, self.lines = [], []

    def step(self, name, total=None):
        """Remember the step's name."""
        self.steps.append(name)
        return Silent().step(name, total)

    def say(self, line):
        """Remember the line."""
        self.lines.append(line)


@pytest.fixture(scope="module")
def trained(log, preset, tmp_path_factory):
    """A bundle trained on the small log, its folder, and what was reported."""
    folder, reporter = tmp_path_factory.mktemp("trained") / "bundle", Recorder()
    torn = replace(log, skipped=2, first_skipped="u.data line 7: rubbish")
    return train(torn, folder, preset, reporter), folder, reporter


def test_a_trained_bundle_is_saved_with_its_metrics(trained, log):
    """What is returned is what lies in the folder, figures of the last tenth included."""
    bundle, folder, _ = trained
    loaded = Bundle.load(folder)
    assert loaded.version == bundle.version
    assert loaded.dataset == log.name
    assert loaded.metrics == bundle.metrics
    assert {"auc", "log_loss", "auc_running_means", "token_layer_share"} <= set(loaded.metrics)


def test_every_step_and_every_unreadable_line_is_reported(trained):
    """Who waits sees what is done, and what could not be read."""
    _, _, reporter = trained
    assert len(reporter.steps) == 5
    assert any("u.data line 7" in line for line in reporter.lines)


def test_evaluation_of_the_loaded_bundle_gives_the_saved_figures(trained, log):
    """Nothing is lost on the way through the folder, and evaluation is deterministic."""
    bundle, folder, _ = trained
    figures = evaluate(Bundle.load(folder), log).figures()
    assert figures == pytest.approx(dict(bundle.metrics), abs=1e-6)


def test_an_evaluation_covers_the_last_tenth_once(trained, log):
    """Every event is scored, and every candidate left at some head."""
    evaluation = evaluate(trained[0], log)
    split = log.split()
    assert evaluation.events == split.end - split.validation_end
    assert sum(evaluation.exit_shares) == pytest.approx(1.0)
    assert 0.0 < evaluation.token_layer_share <= 1.0
    assert len(evaluation.heads) == len(evaluation.exit_layers)


def test_small_logs_get_the_demo_preset_and_large_ones_the_standard(log):
    """Which choices are made follows from the size of the log alone."""
    assert preset_for(log) is DEMO
    assert preset_for(replace(log, interactions=list(log.interactions) * 100)) is STANDARD
