"""Calibration: rates that mean what they say, an exit threshold that keeps its promise."""

import numpy as np
import pytest

from evaluation.metrics import expected_calibration_error, log_loss
from models.calibration import sigmoid
from models.features import GRAPH_FEATURES
from training.calibrate import NEVER, CalibrationOptions, HeldOut, calibrate
from training.exit_costs import TokenCosts, answers_at, confidences, exit_heads

LAYERS = (1, 2, 4)


def held_out(seed, count, disagreement):
    """Answers of a made-up model: the final head is right up to a scale, early heads differ from it by chance.

    Early answers to candidates of large logit are exact, so there is something for a confidence to find.
    """
    random = np.random.default_rng(seed)
    truth = random.normal(0.0, 1.2, count)
    noise = random.normal(0.0, disagreement, (count, 2)) * (np.abs(truth) < 0.8)[:, None]
    logits = np.column_stack([truth + noise[:, 0], truth + noise[:, 1] / 2, truth]) * 2.0 - 0.3
    features = np.zeros((count, len(GRAPH_FEATURES)))
    features[:, 0] = truth + random.normal(0, 0.5, count)
    return HeldOut(
        logits=logits,
        labels=(random.random(count) < sigmoid(truth)).astype(np.float64),
        graph_features=features,
        costs=TokenCosts(np.full(count, 20), np.full(count, 30), np.arange(count)),
    )


def served(calibration, data, threshold):
    """Rates of the candidates at a threshold."""
    ctrs = np.stack([calibration.ctr(head, data.logits[:, head]) for head in range(3)], axis=1)
    return answers_at(ctrs, exit_heads(confidences(calibration, data.logits), threshold))


def made(disagreement=0.5, **options):
    """A calibration and fresh data to judge it by."""
    calibration = calibrate(
        held_out(0, 4_000, disagreement), held_out(1, 4_000, disagreement), LAYERS, CalibrationOptions(**options)
    )
    return calibration, held_out(2, 30_000, disagreement)


def test_every_heads_rates_come_true():
    """Raw logits that are twice too large are brought back: no head's calibration error is large."""
    calibration, fresh = made()
    for head in range(3):
        assert expected_calibration_error(fresh.labels, calibration.ctr(head, fresh.logits[:, head])) < 0.04


def test_the_graph_score_is_calibrated_too():
    """What is answered without any head means what it says as well."""
    calibration, fresh = made()
    assert expected_calibration_error(fresh.labels, calibration.graph_ctr(fresh.graph_features)) < 0.02


def test_confidence_is_the_chance_that_the_final_head_agrees():
    """Among candidates of like confidence, about that share lies within the tolerance of the final answer."""
    calibration, fresh = made()
    confidence = confidences(calibration, fresh.logits)[:, 0]
    path = np.stack([calibration.calibrated_logit(head, fresh.logits[:, head]) for head in range(3)], axis=1)
    agrees = np.abs(path[:, 0] - path[:, 2]) <= calibration.tolerance
    assert expected_calibration_error(agrees, confidence, bins=5) < 0.1


def test_the_base_threshold_saves_layers_and_keeps_its_promise_on_fresh_data():
    """Early exits at the base threshold cost less than full depth, and the log loss rises by at most the promise."""
    calibration, fresh = made(quality_loss=0.02, auc_loss=1.0)
    full = log_loss(fresh.labels, served(calibration, fresh, 2.0))
    base = log_loss(fresh.labels, served(calibration, fresh, calibration.base_threshold))
    assert base <= 1.02 * full
    heads = exit_heads(confidences(calibration, fresh.logits), calibration.base_threshold)
    assert fresh.costs.share(LAYERS, heads) < 0.8


def test_a_stricter_promise_never_lowers_the_base_threshold():
    """Less loss allowed, no earlier exits."""
    thresholds = [made(quality_loss=loss, auc_loss=1.0)[0].base_threshold for loss in (0.1, 0.02, 0.002)]
    assert thresholds == sorted(thresholds)


def test_what_cannot_be_shown_is_not_promised():
    """With a handful of examples, or none to spare, everything goes to the final head."""
    calibration = calibrate(held_out(0, 400, 0.5), held_out(1, 20, 0.5), LAYERS, CalibrationOptions())
    assert calibration.base_threshold == NEVER


def test_the_frontier_rises_from_the_floor_to_full_depth():
    """Thresholds and costs ascend together, from the first head alone to all layers."""
    calibration, _ = made()
    thresholds = [point.threshold for point in calibration.frontier]
    shares = [point.token_layer_share for point in calibration.frontier]
    assert thresholds == sorted(thresholds)
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] == pytest.approx(1.0)
    assert calibration.floor_threshold == thresholds[0]


def test_the_papers_criterion_gets_a_frontier_of_its_own():
    """With the plain ratio the thresholds are given in the ratio's terms: half of them separate confident answers."""
    calibration, _ = made(criterion="ratio")
    assert calibration.criterion == "ratio"
    assert calibration.frontier[len(calibration.frontier) // 2].threshold > 0.5


def test_an_unknown_user_and_item_get_about_the_overall_rate_from_the_graph():
    """Held-out data without unknown ids does not make the graph score extrapolate for them."""
    random = np.random.default_rng(4)
    data = held_out(0, 4_000, 0.5)
    columns = {name: place for place, name in enumerate(GRAPH_FEATURES)}
    features = data.graph_features.copy()
    for name in ("user_count", "item_count"):
        features[:, columns[name]] = random.normal(4.0, 0.3, len(features))
    for name in ("user_known", "item_known"):
        features[:, columns[name]] = random.random(len(features)) < 0.999
    calibration = calibrate(data._replace(graph_features=features), data, LAYERS, CalibrationOptions())
    unknown = float(calibration.graph_ctr(np.zeros((1, len(GRAPH_FEATURES))))[0])
    assert abs(unknown - data.labels.mean()) < 0.1
