"""Reliability agrees with plain counting."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from evaluation.metrics import expected_calibration_error
from evaluation.reliability import reliability, wilson_interval

scored = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60)


@given(scored, st.integers(1, 20))
def test_bins_are_what_counting_by_hand_gives(examples, bins):
    """Sorted by prediction and cut into parts whose sizes differ by one at most, the larger ones first."""
    found = reliability(*zip(*examples, strict=True), bins=bins)

    ordered, cuts = sorted(examples, key=lambda one: one[1]), []
    size, larger = divmod(len(examples), bins)
    for number in range(bins):
        count = size + (number < larger)
        cuts.append(ordered[:count])
        ordered = ordered[count:]
    cuts = [part for part in cuts if part]
    assert [part.events for part in found.bins] == [len(part) for part in cuts]
    assert [part.clicks for part in found.bins] == [sum(clicked for clicked, _ in part) for part in cuts]
    for part, by_hand in zip(found.bins, cuts, strict=True):
        assert part.predicted == pytest.approx(sum(score for _, score in by_hand) / len(by_hand))
        assert part.observed == part.clicks / part.events
        assert 0 <= part.low <= part.observed <= part.high <= 1


@given(scored, st.integers(1, 20))
def test_the_calibration_error_is_the_mean_distance_of_the_bins(examples, bins):
    """What the bins show adds up to the error that is told, and is the metric of that name."""
    labels, scores = zip(*examples, strict=True)
    found = reliability(labels, scores, bins)
    gaps = sum(part.events * abs(part.predicted - part.observed) for part in found.bins)
    assert found.calibration_error == pytest.approx(gaps / found.events)
    assert found.calibration_error == pytest.approx(expected_calibration_error(labels, scores, bins))


@given(st.integers(1, 500).flatmap(lambda events: st.tuples(st.integers(0, events), st.just(events))))
def test_the_interval_is_wilsons(counts):
    """As scipy computes it."""
    expected = binomtest(*counts).proportion_ci(0.95, method="wilson")
    assert wilson_interval(*counts) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_without_events_nothing_is_known():
    """No bins, no error that could be taken for zero, and an interval of everything."""
    nothing = reliability([], [])
    assert (nothing.events, nothing.calibration_error, nothing.bins) == (0, None, ())
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert not math.isnan(sum(wilson_interval(0, 1)))
