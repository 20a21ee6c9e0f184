"""Training from a log to a bundle, and its evaluation."""

import math
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from itertools import repeat

import msgspec
import numpy as np
import pytest
import torch

from evaluation.baseline import running_means_auc
from evaluation.metrics import auc, expected_calibration_error, log_loss
from graph_updater.graph.base_embeddings import bundled_base
from models.bundle import Bundle
from models.golden_check import check_golden
from training.evaluate import evaluate
from training.exit_costs import TokenCosts, answers_at, confidences, exit_heads
from training.golden import REQUESTS
from training.presets import COMPACT_PRETRAINED, DEMO, PRETRAINED, STANDARD
from training.replay import Replay, replay_examples
from training.train import preset_for, train
from training.train_exits import predict


class Recorder:
    """A reporter that remembers what it was told."""

    def __init__(self):
        self.totals, self.done, self.lines = {}, Counter(), []

    @contextmanager
    def step(self, name, total=None):
        """Remember the step's size, and count what is done of it."""
        self.totals[name] = total

        def advance(done=1, note=""):  # noqa: ARG001 - the protocol's own name
            self.done[name] += done

        yield advance

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
    assert {"auc", "auc_layer_1", "log_loss", "auc_running_means", "token_layer_share"} <= set(loaded.metrics)


def test_a_trained_bundle_holds_its_golden_scores(trained):
    """What lies in the folder gives the scores that the model gave at the end of its training."""
    _, folder, _ = trained
    assert check_golden(Bundle.load(folder), tolerance=1e-5) == REQUESTS + 1


def test_the_synthetic_worlds_probabilities_are_shown_but_never_learned_from(trained, log, preset, tmp_path):
    """Without them the very same bundle comes out, and only the limit is missing from its figures."""
    bundle, _, _ = trained
    blind = train(replace(log, click_probabilities=()), tmp_path / "bundle", preset)
    assert blind.version == bundle.version
    assert dict(bundle.metrics) == {**blind.metrics, "auc_limit": bundle.metrics["auc_limit"]}
    start = log.split().validation_end
    labels = [event.positive for event in log.interactions[start:]]
    assert bundle.metrics["auc_limit"] == auc(labels, log.click_probabilities[start:])


def test_every_step_and_every_unreadable_line_is_reported(trained):
    """Every step is reported to its end, and so are the lines that could not be read."""
    _, _, reporter = trained
    assert len(reporter.totals) == 5
    assert dict(reporter.done) == reporter.totals
    assert any("u.data line 7" in line for line in reporter.lines)


def test_evaluation_of_the_loaded_bundle_gives_the_saved_figures(trained, log):
    """Saving loses nothing and evaluation is deterministic: the figures are exactly equal."""
    bundle, folder, _ = trained
    assert evaluate(Bundle.load(folder), log).figures() == dict(bundle.metrics)


def test_a_preset_may_evaluate_on_few_events(log, preset, tmp_path):
    """The figures of a demonstration on a slow model are those of the latest events alone."""
    bundle = train(log, tmp_path / "bundle", replace(preset, most_tested=20))
    assert bundle.metrics["events"] == 20


def test_a_preset_may_compute_on_fewer_threads(log, preset, tmp_path, monkeypatch):
    """While it trains; afterwards the process has as many as before."""
    usual, seen = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    train(log, tmp_path / "bundle", replace(preset, threads=1, most_tested=20))
    assert (seen[0], seen[-1]) == (1, usual)


def test_layers_that_teach_nothing_are_told(trained, log, preset, tmp_path):
    """Where no epoch improves on the regression, training says that every head gives its answer, and what to do."""
    reporter = type(trained[2])()
    untaught = replace(preset, exits=replace(preset.exits, epochs=0), most_tested=20)
    bundle = train(log, tmp_path / "bundle", untaught, reporter)
    assert bundle.model.is_silent
    assert any("no epoch was better" in line for line in reporter.lines)
    assert trained[0].model.is_silent is any("no epoch was better" in line for line in trained[2].lines)


def test_figures_are_those_of_each_events_own_prompt(trained, log, monkeypatch):
    """Scoring the last tenth event by event through all layers gives every figure of the evaluation."""
    monkeypatch.setattr("training.evaluate.SCORED_AT_ONCE", 32)  # so that the events take several rounds
    bundle = trained[0]
    calibration, layers = bundle.calibration, bundle.model.config.exit_layers
    start = log.split().validation_end
    replay = Replay(log.items, bundled_base(bundle.graph, bundle.text), bundle.text, bundle.limits)
    replay.advance(log.interactions[:start])
    examples = list(replay_examples(replay, log.interactions[start:], repeat(1), start))
    labels = np.array([event.positive for event in log.interactions[start:]], np.float64)
    logits = np.concatenate([predict(bundle.model, [example]) for example in examples])
    ctrs = np.stack([calibration.ctr(head, logits[:, head]) for head in range(len(layers))], axis=1)
    confidence = confidences(calibration, logits)
    threshold = float(np.median(confidence[:, 0]))  # half of the candidates leave at the first head
    heads = exit_heads(confidence, threshold)
    calibration = replace(calibration, base_threshold=threshold, floor_threshold=0.0)

    evaluation = evaluate(replace(bundle, calibration=calibration), log)

    assert evaluation.click_rate == labels.mean()
    assert evaluation.lead.difference == pytest.approx(evaluation.served.auc - evaluation.baseline_auc, abs=1e-12)
    assert evaluation.lead.low < evaluation.lead.difference < evaluation.lead.high
    assert_same_quality(evaluation.served, labels, answers_at(ctrs, heads))
    for head, quality in enumerate(evaluation.heads):
        assert_same_quality(quality, labels, ctrs[:, head])
    graph = calibration.graph_ctr(np.concatenate([example.graph_features() for example in examples]))
    assert_same_quality(evaluation.graph, labels, graph)
    assert evaluation.exit_shares == tuple(np.bincount(heads, minlength=len(layers)) / len(labels))
    assert evaluation.exit_shares[0] == 0.5
    assert evaluation.token_layer_share == pytest.approx(TokenCosts.of(examples).share(layers, heads))
    assert evaluation.base_threshold == threshold
    assert evaluation.exit_layers == layers


def assert_same_quality(quality, labels, ctrs):
    """Check a quality, up to the rounding that batching causes."""
    assert quality.auc == pytest.approx(auc(labels, ctrs), abs=2e-3)
    assert quality.log_loss == pytest.approx(log_loss(labels, ctrs), abs=1e-5)
    assert quality.calibration_error == pytest.approx(expected_calibration_error(labels, ctrs), abs=1e-4)


def test_no_score_of_an_evaluation_knows_its_own_outcome(trained, log):
    """Whether the last event was a click or not, it gets the same score: the two likelihoods add up to 1."""
    *history, last = log.interactions
    clicked, skipped = (
        evaluate(
            trained[0],
            replace(log, interactions=[*history, msgspec.structs.replace(last, positive=positive)]),
            most_events=1,
        )
        for positive in (True, False)
    )
    assert clicked.events == skipped.events == 1
    for one, other in zip(
        (clicked.served, *clicked.heads, clicked.graph), (skipped.served, *skipped.heads, skipped.graph), strict=True
    ):
        assert math.exp(-one.log_loss) + math.exp(-other.log_loss) == pytest.approx(1.0, abs=1e-9)


def test_an_evaluation_covers_the_last_tenth_once(trained, log):
    """Every event is scored; of too many, the latest."""
    split = log.split()
    assert evaluate(trained[0], log).events == split.end - split.validation_end
    latest = log.interactions[-10:]
    evaluation = evaluate(trained[0], log, most_events=10)
    assert evaluation.events == 10
    assert evaluation.click_rate == pytest.approx(np.mean([event.positive for event in latest]))
    assert evaluation.baseline_auc == running_means_auc(log.interactions[:-10], latest)


def test_small_logs_get_the_demo_preset_and_large_ones_the_standard(log):
    """The preset follows from the size of the log."""
    assert preset_for(log) is DEMO
    assert preset_for(replace(log, interactions=list(log.interactions) * 100)) is STANDARD


@pytest.mark.parametrize("pretrained", [None, PRETRAINED, COMPACT_PRETRAINED])
def test_logs_with_grades_get_longer_histories(log, pretrained):
    """What a rating says holds for long; nothing else of the preset changes, and nothing without grades."""
    usual = preset_for(log, pretrained)
    assert usual.graph == DEMO.graph
    first, *others = log.interactions
    graded = replace(log, interactions=[msgspec.structs.replace(first, grade=0.5), *others])
    longer = preset_for(graded, pretrained)

    assert (usual.limits.history_length, longer.limits.history_length) == (50, 200)
    assert replace(longer, limits=usual.limits) == usual
