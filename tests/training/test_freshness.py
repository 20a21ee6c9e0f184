"""Stale state: what is scored between two refreshes knows nothing of the events there."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from evaluation.freshness import INTERVALS
from training.evaluate import evaluate
from training.freshness import served_ctrs, with_freshness

pytestmark = pytest.mark.slow
EVERY_MS = 1


def ignore(done=1, note=""):
    """Takes progress and does nothing."""


def spaced(log):
    """The log with one event a minute, so that each has a time of its own."""
    events = [
        msgspec.structs.replace(event, event_time_ms=60_000 * place) for place, event in enumerate(log.interactions)
    ]
    return replace(log, interactions=events)


def flipped(log, start):
    """All labels from a place on are the opposite."""
    events = [msgspec.structs.replace(event, positive=not event.positive) for event in log.interactions[start:]]
    return replace(log, interactions=[*log.interactions[:start], *events])


def test_frozen_scores_know_nothing_after_the_split(tiny_bundle, log):
    """Opposite outcomes of the tested events change no frozen score, but scores that follow every event."""
    split = log.split().validation_end
    other = flipped(log, split)
    frozen = served_ctrs(tiny_bundle, log, None, ignore)
    assert len(frozen) == len(log.interactions) - split
    np.testing.assert_array_equal(frozen, served_ctrs(tiny_bundle, other, None, ignore))
    fresh, other_fresh = (served_ctrs(tiny_bundle, spaced(one), EVERY_MS, ignore) for one in (log, other))
    assert fresh[0] == other_fresh[0]
    assert not np.array_equal(fresh, other_fresh)


def test_an_hour_of_events_shares_a_state(tiny_bundle, log):
    """With one event a minute, outcomes within an hour change nothing before the next refresh."""
    even = spaced(log)
    split, minutes = even.split().validation_end, 60
    one, other = (served_ctrs(tiny_bundle, these, 60_000 * minutes, ignore) for these in (even, flipped(even, split)))
    # The last event before the split starts the first hour.
    hour = minutes - 1
    # Not to the last digit: who shares a batch, and so the order of sums, depends on the lengths of later prompts.
    np.testing.assert_allclose(one[:hour], other[:hour], rtol=1e-6)
    assert np.abs(one[hour:] - other[hour:]).max() > 1e-3


def test_refreshing_after_every_event_is_the_evaluation_itself(tiny_bundle, log):
    """With a time for each event, the shortest interval gives the quality that `evaluate` gives per event."""
    even = spaced(log)
    evaluation = evaluate(tiny_bundle, even)
    found = with_freshness(evaluation, tiny_bundle, even)
    assert [point.refreshed for point in found.freshness] == [*(name for name, _ in INTERVALS), "per event"]
    minute, event = found.freshness[-2:]
    assert minute.auc == pytest.approx(event.auc)
    assert minute.log_loss == pytest.approx(event.log_loss)
    assert event.auc == evaluation.served.auc
    assert replace(found, freshness=()) == evaluation
