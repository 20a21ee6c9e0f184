"""Learn then test: the guarantee holds with the probability it states."""

import math

import numpy as np
import pytest

from training.learn_then_test import betting_p_value, lowest_safe


def test_a_broken_promise_is_shown_to_hold_at_most_as_often_as_allowed():
    """With a true mean at the limit, false proofs stay below the allowed share, also for skewed risks."""
    random = np.random.default_rng(0)
    false_proofs = sum(betting_p_value(random.beta(0.2, 1.8, 400), 0.1, 0.1) <= 0.1 for _ in range(400))
    assert false_proofs / 400 <= 0.1


def test_the_p_value_is_valid_at_every_level():
    """Small p-values are at least as rare as they say where the mean risk is at the limit."""
    random = np.random.default_rng(1)
    values = np.array([betting_p_value(random.random(300), 0.5, 0.05) for _ in range(400)])
    for level in (0.01, 0.05, 0.2):
        assert (values <= level).mean() <= level + 0.03


def test_a_kept_promise_is_shown_with_enough_examples():
    """Five thousand examples of small variance suffice for a margin of half a per cent."""
    risks = np.clip(np.random.default_rng(2).normal(0.5, 0.03, 5_000), 0, 1)
    assert betting_p_value(risks, 0.505, 0.05) < 0.05
    assert betting_p_value(risks, 0.495, 0.05) > 0.9


def p_value_by_the_paper(risks, limit, failure_probability):
    """The definition, bet by bet: each stake depends on earlier risks alone."""
    wealth, best, seen, squares, variance = 1.0, 1.0, 0.5, 0.25, 0.25
    for count, risk in enumerate(risks, start=1):
        stake = math.sqrt(2 * math.log(1 / failure_probability) / (len(risks) * variance))
        wealth *= 1 - min(stake, 0.75 / (1 - limit)) * (risk - limit)
        best = max(best, wealth)
        seen += risk
        squares += (risk - seen / (count + 1)) ** 2
        variance = squares / (count + 1)
    return 1 / best


@pytest.mark.parametrize("limit", [0.1, 0.5, 0.9])
def test_the_p_value_follows_the_papers_definition(limit):
    """As Waudby-Smith and Ramdas define it: stakes from earlier risks, and the largest wealth counts."""
    random = np.random.default_rng(7)
    for count in (1, 2, 40):
        for risks in (random.random(count), random.beta(0.2, 1.8, count), np.zeros(count), np.ones(count)):
            expected = p_value_by_the_paper(risks.tolist(), limit, 0.05)
            assert betting_p_value(risks, limit, 0.05) == pytest.approx(expected)


def test_the_search_stops_at_the_first_threshold_that_fails():
    """Thresholds below one that failed are never chosen, safe as they may look."""
    risk = {1.0: 0.0, 0.9: 0.0, 0.8: 1.0, 0.7: 0.0}
    tried = []

    def risks(threshold):
        tried.append(threshold)
        return np.full(500, risk[threshold])

    assert lowest_safe(list(risk), risks, limit=0.1, failure_probability=0.05) == 0.9
    assert tried == [1.0, 0.9, 0.8]


def test_nothing_is_shown_without_examples():
    """Without data no threshold is safe."""
    assert lowest_safe([1.0], lambda _: np.empty(0), limit=0.1, failure_probability=0.05) is None


def test_risks_outside_the_unit_interval_are_refused():
    """The test is only valid for bounded risks."""
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        betting_p_value([0.5, 1.5], 0.1, 0.05)
