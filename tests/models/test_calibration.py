"""What the heads' logits mean, in plain numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.calibration import (
    CONFIDENCE_FEATURES,
    ExitCalibration,
    FrontierPoint,
    confidence_features,
    ratio_confidence,
    sigmoid,
)
from models.features import GRAPH_FEATURES

PATHS = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(-1e6, 1e6))


@pytest.fixture
def calibration() -> ExitCalibration:
    """Three heads, numbers of no meaning."""
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
    """A calibration survives the way through JSON to the last bit."""
    read = ExitCalibration.from_json(calibration.to_json())
    assert read.to_json() == calibration.to_json()
    assert read.frontier == calibration.frontier
    np.testing.assert_array_equal(read.confidence_weights, calibration.confidence_weights)


def test_the_former_name_of_the_base_threshold_is_still_read(calibration):
    """Bundles written before it was renamed call it `calm_threshold`."""
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


@pytest.mark.parametrize(
    ("field", "wrong"), [("intercepts", np.zeros(2)), ("graph_scale", np.full(len(GRAPH_FEATURES), np.nan))]
)
def test_wrong_parts_are_refused_by_name(calibration, field, wrong):
    """A part of the wrong shape, or with numbers that are not finite, is named in the error."""
    with pytest.raises(ValueError, match=field):
        replace(calibration, **{field: wrong})


def test_a_floor_above_calm_is_refused(calibration):
    """The lowest threshold cannot lie above the one used without load."""
    with pytest.raises(ValueError, match="floor_threshold"):
        replace(calibration, floor_threshold=0.95)


def test_platt_scaling_is_slope_and_intercept(calibration):
    """A head's rate is the sigmoid of its scaled logit."""
    assert calibration.ctr(1, 2.0) == pytest.approx(1 / (1 + np.exp(-(2.0 * 0.8 - 0.2))))


def test_the_final_head_is_always_sure(calibration):
    """Nothing lies deeper than the final head, so nothing can change its answer."""
    np.testing.assert_array_equal(calibration.confidence(2, np.zeros((4, 3))), np.ones(4))


def test_confidence_is_a_logistic_regression_over_the_features(calibration):
    """An early head's confidence is computed from the calibrated path of logits up to it."""
    logits = np.array([[1.0, -0.5], [0.2, 3.0]])
    calibrated = logits * calibration.slopes[:2] + calibration.intercepts[:2]
    expected = sigmoid(confidence_features(calibrated) @ calibration.confidence_weights[1])
    np.testing.assert_allclose(calibration.confidence(1, logits), expected)


def test_the_criterion_is_a_setting(calibration):
    """With the criterion `ratio` the paper's plain confidence decides."""
    logits = np.array([[1.0, -0.5]])
    plain = replace(calibration, criterion="ratio")
    np.testing.assert_array_equal(plain.confidence(1, logits), ratio_confidence(logits))


def test_features_of_a_known_path():
    """Logit, distance, change, trend, range and entropy of a path one can follow by hand."""
    features = confidence_features(np.array([[1.0, -1.0, 0.0]]))
    assert dict(zip(CONFIDENCE_FEATURES, features[0], strict=True)) == pytest.approx(
        {"bias": 1, "logit": 0, "distance": 0, "change": 1, "trend": 1, "spread": 2, "entropy": 1}
    )


@settings(max_examples=50)
@given(PATHS)
def test_features_and_ratio_stay_finite(path):
    """However extreme the logits, features are finite and the plain confidence is a probability."""
    assert np.isfinite(confidence_features(path)).all()
    confidence = ratio_confidence(path)
    assert ((confidence >= 0) & (confidence <= 1)).all()


def test_a_low_rate_counts_for_the_ratio_as_a_high_one_does():
    """The plain criterion looks at how lopsided the answer is, whichever side."""
    np.testing.assert_allclose(ratio_confidence(np.array([[2.0]])), ratio_confidence(np.array([[-2.0]])))


def test_a_trend_against_the_answer_lowers_the_ratio():
    """An answer on its way to the other side is trusted less than one that stands still or grows."""
    falling, still, growing = (ratio_confidence(np.array([[first, 1.0]]))[0] for first in (2.5, 1.0, 0.0))
    assert falling < 0.5 < still == growing


def test_graph_scores_are_standardised_then_weighed(calibration):
    """The graph score is a logistic regression over standardised features."""
    features = calibration.graph_mean + calibration.graph_scale
    expected = sigmoid(calibration.graph_weights.sum() + calibration.graph_bias)
    np.testing.assert_allclose(calibration.graph_ctr(features[None]), [expected])
