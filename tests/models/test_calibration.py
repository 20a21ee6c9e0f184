"""From logits to rates and confidences."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy

from models.calibration import (
    CONFIDENCE_FEATURES,
    MAX_LOGIT,
    ExitCalibration,
    FrontierPoint,
    confidence_features,
    ratio_confidence,
)
from models.features import GRAPH_FEATURES

PATHS = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(-1e6, 1e6))


def logistic(logit):
    """Probability of a log-odds, by its definition."""
    return 1 / (1 + math.exp(-logit))


@pytest.fixture
def calibration() -> ExitCalibration:
    """Three heads with arbitrary numbers."""
    random = np.random.default_rng(5)
    return ExitCalibration(
        slopes=np.array([0.5, 0.8, 1.0]),
        intercepts=np.array([0.1, -0.2, 0.0]),
        confidence_weights=random.standard_normal((2, len(CONFIDENCE_FEATURES))),
        tolerance=0.1,
        base_threshold=0.9,
        floor_threshold=0.2,
        frontier=(FrontierPoint(0.2, 0.4, 0.01), FrontierPoint(0.9, 0.7, 0.001)),
        graph_mean=random.standard_normal(len(GRAPH_FEATURES)),
        graph_scale=random.uniform(0.5, 2.0, len(GRAPH_FEATURES)),
        graph_weights=random.standard_normal(len(GRAPH_FEATURES)),
        graph_bias=-1.0,
    )


def test_json_gives_back_the_same_calibration(calibration):
    """Written to JSON and read back, every number is the same."""
    read = ExitCalibration.from_json(calibration.to_json())
    assert read.to_json() == calibration.to_json()
    assert read.frontier == calibration.frontier
    np.testing.assert_array_equal(read.confidence_weights, calibration.confidence_weights)


def test_the_former_name_of_the_base_threshold_is_still_read(calibration):
    """Bundles from before the rename call it `calm_threshold`."""
    former = calibration.to_json().replace("base_threshold", "calm_threshold")
    assert ExitCalibration.from_json(former).base_threshold == calibration.base_threshold


def test_one_head_survives_json(calibration):
    """A model without early heads has an empty table of confidence weights, and keeps it."""
    single = replace(
        calibration,
        slopes=np.ones(1),
        intercepts=np.zeros(1),
        confidence_weights=np.zeros((0, len(CONFIDENCE_FEATURES))),
    )
    assert ExitCalibration.from_json(single.to_json()).confidence_weights.shape == (0, len(CONFIDENCE_FEATURES))


def test_unknown_fields_are_refused(calibration):
    """A file with another set of fields is an error that names them."""
    parts = json.loads(calibration.to_json()) | {"temperature": 1.0}
    with pytest.raises(ValueError, match="temperature"):
        ExitCalibration.from_json(json.dumps(parts))


@pytest.mark.parametrize("name", ["tolerance", "base_threshold", "graph_bias"])
def test_what_is_not_a_number_is_not_written(calibration, name):
    """JSON has no NaN, so a calibration with one is refused instead of written to a file that others cannot read."""
    with pytest.raises(ValueError, match="JSON"):
        replace(calibration, **{name: math.nan}).to_json()


def test_whole_numbers_are_read_as_floats(calibration):
    """A file may say 1 for 1.0: the arrays are float64 all the same."""
    parts = json.loads(calibration.to_json()) | {"slopes": [2, 3, 1]}
    read = ExitCalibration.from_json(json.dumps(parts))
    assert read.slopes.tolist() == [2.0, 3.0, 1.0]
    assert read.slopes.dtype == np.float64


ARRAYS = ("slopes", "intercepts", "confidence_weights", "graph_mean", "graph_scale", "graph_weights")


@pytest.mark.parametrize("name", ARRAYS)
def test_wrong_parts_are_refused_by_name(calibration, name):
    """A part of the wrong shape, or with numbers that are not finite, is named in the error."""
    part = getattr(calibration, name)
    # The number of heads is read off the slopes: with too many of them, it is the other parts that do not fit.
    blamed = "intercepts" if name == "slopes" else name
    with pytest.raises(ValueError, match=f"{blamed} has shape"):
        replace(calibration, **{name: np.concatenate([part, part])})
    with pytest.raises(ValueError, match=f"{name} holds numbers that are not finite"):
        replace(calibration, **{name: np.full_like(part, np.nan)})


def test_a_floor_above_the_base_threshold_is_refused(calibration):
    """The lowest threshold cannot lie above the one used without load; equal to it, it may be."""
    with pytest.raises(ValueError, match="floor_threshold"):
        replace(calibration, floor_threshold=0.95)
    assert replace(calibration, floor_threshold=0.9).floor_threshold == calibration.base_threshold


def test_platt_scaling_is_slope_and_intercept(calibration):
    """A head's rate is the sigmoid of its scaled logit."""
    assert calibration.ctr(1, 2.0) == pytest.approx(logistic(2.0 * 0.8 - 0.2))


@pytest.mark.parametrize("criterion", ["calibrated", "ratio"])
def test_the_final_head_is_always_sure(calibration, criterion):
    """Nothing lies deeper than the final head, so nothing can change its answer, whatever the criterion."""
    confidence = replace(calibration, criterion=criterion).confidence(2, np.zeros((4, 3)))
    np.testing.assert_array_equal(confidence, np.ones(4))


def test_each_early_head_has_confidence_weights_of_its_own(calibration):
    """A head's confidence is a logistic regression on the path of calibrated logits up to that head."""
    weights = np.zeros((2, len(CONFIDENCE_FEATURES)))
    weights[0, CONFIDENCE_FEATURES.index("bias")], weights[0, CONFIDENCE_FEATURES.index("distance")] = 0.5, 2.0
    weights[1, CONFIDENCE_FEATURES.index("change")] = -3.0
    heads = replace(calibration, confidence_weights=weights)
    first, second = 0.5 * -1.0 + 0.1, 0.8 * 3.0 - 0.2  # by slope and intercept
    assert heads.confidence(0, [[-1.0]]) == pytest.approx(logistic(0.5 + 2.0 * abs(first)))
    assert heads.confidence(1, [[-1.0, 3.0]]) == pytest.approx(logistic(-3.0 * (second - first)))


def test_the_criterion_is_a_setting(calibration):
    """With the criterion `ratio` confidence follows from the raw logits, without anything fitted."""
    ratio = replace(calibration, criterion="ratio")
    assert ratio.confidence(0, [[2.0]]) == pytest.approx(logistic(2.0))
    assert ratio.confidence(1, [[0.5, 2.0]]) == pytest.approx(logistic(2.0))
    assert calibration.confidence(0, [[2.0]]) != pytest.approx(logistic(2.0))


def test_the_ratio_of_float32_logits_is_computed_in_float64(calibration):
    """The model's logits are float32; rounding confidences to that would move candidates across a threshold."""
    ratio = replace(calibration, criterion="ratio")
    logits = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    np.testing.assert_array_equal(ratio.confidence(1, logits), ratio_confidence(logits.astype(np.float64)))


def test_features_of_a_known_path():
    """Logit, distance, change, trend, range and entropy of a path that can be followed by hand."""
    features = confidence_features(np.array([[1.0, 2.0, -1.0, -1.5]]))
    probability = logistic(-1.5)
    assert dict(zip(CONFIDENCE_FEATURES, features[0], strict=True)) == pytest.approx(
        {
            "bias": 1.0,
            "logit": -1.5,
            "distance": 1.5,
            "change": 0.5,
            "trend": -0.5,
            "spread": 3.5,
            "entropy": entropy([probability, 1 - probability], base=2),
        }
    )


def test_the_first_head_has_no_trend():
    """With one logit there is no change, no trend and no range."""
    features = dict(zip(CONFIDENCE_FEATURES, confidence_features(np.array([[-2.0]]))[0], strict=True))
    assert (features["change"], features["trend"], features["spread"]) == (0.0, 0.0, 0.0)
    assert (features["logit"], features["distance"]) == (-2.0, 2.0)


def test_at_the_second_head_the_step_is_the_difference_of_its_two_logits():
    """Two logits are enough for a change, a trend and a range."""
    features = dict(zip(CONFIDENCE_FEATURES, confidence_features(np.array([[1.0, -0.5]]))[0], strict=True))
    assert (features["change"], features["trend"], features["spread"]) == (1.5, -1.5, 1.5)


def test_logits_beyond_the_limit_count_as_the_limit():
    """On both sides, and for each head of a path."""
    extreme, limited = (
        np.array([[-limit, limit], [limit, -limit], [0.0, -limit], [0.0, limit]]) for limit in (1e3, MAX_LOGIT)
    )
    np.testing.assert_array_equal(confidence_features(extreme), confidence_features(limited))
    np.testing.assert_array_equal(ratio_confidence(extreme), ratio_confidence(limited))
    np.testing.assert_array_equal(ratio_confidence(extreme[:, :1]), ratio_confidence(limited[:, :1]))


@given(st.floats(-25, 25))
def test_entropy_is_that_of_a_yes_or_no_answer_in_bits(logit):
    """One bit where both answers are equally likely, hardly any where one is nearly certain."""
    probability = logistic(logit)
    found = confidence_features(np.array([[logit]]))[0, CONFIDENCE_FEATURES.index("entropy")]
    assert found == pytest.approx(entropy([probability, logistic(-logit)], base=2), rel=1e-9, abs=1e-12)


@settings(max_examples=50)
@given(PATHS)
def test_features_and_ratio_stay_bounded(path):
    """However extreme the logits, no feature exceeds the range of two bounded logits, and confidence is a share."""
    assert np.abs(confidence_features(path)).max() <= 2 * MAX_LOGIT
    confidence = ratio_confidence(path)
    assert ((confidence >= 0) & (confidence <= 1)).all()


@given(PATHS)
@settings(max_examples=50)
def test_a_low_rate_counts_for_the_ratio_as_a_high_one_does(path):
    """The ratio criterion treats clicks and skips alike: the negated logits have the same confidence."""
    if (path[:, -1] != 0).all():
        np.testing.assert_allclose(ratio_confidence(path), ratio_confidence(-path))


def test_a_trend_against_the_answer_lowers_the_ratio():
    """A step towards the other side counts twice; one that confirms the answer, or none, changes nothing."""
    falling, still, growing = (ratio_confidence(np.array([[first, 1.0]]))[0] for first in (2.5, 1.0, 0.0))
    assert falling == pytest.approx(logistic(1.0 - 1.5))
    assert still == growing == pytest.approx(logistic(1.0))


@pytest.mark.parametrize(
    ("path", "distance"),
    [
        ([2.0, 0.5], -1.0),
        ([-2.0, -0.5], -1.0),
        ([0.7, 0.6], 0.5),
        ([-0.7, -0.6], 0.5),
        ([0.5, -0.2], 0.2),
        ([-0.5, 0.2], 0.2),
        ([9.0, 2.0, 1.5], 1.0),
    ],
)
def test_the_ratio_by_numbers(path, distance):
    """A step towards the other side is taken once more, on either side; one that has just crossed over confirms."""
    assert ratio_confidence(np.array([path]))[0] == pytest.approx(logistic(distance))


def test_even_odds_count_as_a_click_for_the_ratio():
    """Where both answers are equally likely, a step that fell to there goes on falling, and one that rose does not."""
    risen, fallen = ratio_confidence(np.array([[-1.0, 0.0], [1.0, 0.0]]))
    assert risen == 0.5
    assert fallen == pytest.approx(logistic(-1.0))


def test_graph_scores_are_standardised_then_weighed(calibration):
    """The graph score is a logistic regression over standardised features: with one of them a deviation above its mean,
    that feature's weight is added to the intercept.
    """
    features = calibration.graph_mean + np.diag(calibration.graph_scale)  # (features, features)
    expected = [logistic(weight - 1.0) for weight in calibration.graph_weights]
    np.testing.assert_allclose(calibration.graph_ctr(features), expected)
