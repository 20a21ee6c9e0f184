"""What the live page counts, from plain numbers."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.scoring_job import CONFIDENT, DEADLINE, FINAL, GRAPH, MADE_BY
from worker.live.figures import HISTORY, KEPT_PER_SECOND, WINDOW, Gauges, LiveFigures

GAUGES = Gauges(threshold=0.8, waiting=1, in_flight=2, request_lag=3, state_lag=4)


def job(latency_s=0.05, budget_s=0.2, made_by=(FINAL,), exit_layer=(4,)):
    """What is read of an answered request."""
    return SimpleNamespace(
        latency_s=latency_s,
        budget_s=budget_s,
        made_by=np.array(made_by, np.int8),
        exit_layer=np.array(exit_layer, np.int32),
    )


def seconds(figures, count, per_second=0, start=0, **changes):
    """Lets so many seconds pass with so many answers each; the figures of the last."""
    for second in range(start, start + count):
        for _ in range(per_second):
            figures.note(job(**changes))
        told = figures.tick(second + 1.0, (second + 1) * 1000, GAUGES, {})
    return told


def test_rates_are_per_second_of_the_time_that_passed():
    """Ticks that come late count for the time that they really took; before the first window is full, for its part."""
    figures = LiveFigures(0.0)
    for _ in range(30):
        figures.note(job(made_by=(FINAL, GRAPH), exit_layer=(4, 0)))
    told = figures.tick(2.0, 2000, GAUGES, {})

    assert told.point.requests_per_s == pytest.approx(15)
    assert told.candidates_per_s == pytest.approx(30)
    assert told.answered == 30
    assert told.point.threshold == 0.8
    assert told.gauges == GAUGES


def test_latencies_are_of_the_window_and_measured_by_the_budget():
    """Quantiles over ten seconds; a request above its own budget is not within it, whatever the others' budgets are."""
    figures = LiveFigures(0.0)
    for number in range(100):
        figures.note(job(latency_s=number / 1000, budget_s=0.0895))
    told = figures.tick(1.0, 1000, GAUGES, {})

    assert told.point.p50_ms == pytest.approx(49.5)
    assert told.point.p99_ms == pytest.approx(98.01)
    assert told.point.budget_ms == pytest.approx(89.5)
    assert told.within_budget == pytest.approx(0.9)


def test_what_is_older_than_the_window_does_not_count():
    """Ten quiet seconds later only the number of requests since the start remembers."""
    figures = LiveFigures(0.0)
    assert seconds(figures, 1, per_second=5).point.requests_per_s == 5
    assert seconds(figures, WINDOW - 1, start=1).point.requests_per_s == pytest.approx(5 / WINDOW)
    told = seconds(figures, 1, start=WINDOW)

    assert told.point.requests_per_s == 0
    assert told.answered == 5
    assert math.isnan(told.point.p50_ms)
    assert math.isnan(told.within_budget)
    assert told.exits == {}
    assert told.made_by == {}


@given(st.lists(st.tuples(st.sampled_from([(FINAL, 4), (CONFIDENT, 2), (DEADLINE, 1), (GRAPH, 0)])), max_size=40))
def test_shares_are_of_candidates_and_add_up(candidates):
    """By layer and by rung, rungs best first; both are shares of the same candidates."""
    figures = LiveFigures(0.0)
    codes = [code for ((code, _),) in candidates]
    layers = [layer for ((_, layer),) in candidates]
    figures.note(job(made_by=codes, exit_layer=layers))
    told = figures.tick(1.0, 1000, GAUGES, {})

    assert told.exits == {layer: layers.count(layer) / len(layers) for layer in sorted(set(layers))}
    assert told.made_by == {MADE_BY[code]: codes.count(code) / len(codes) for code in sorted(set(codes))}


def test_freshness_is_that_of_the_window():
    """From a histogram that only grows, what was added in the last ten seconds; nothing added, nothing known."""
    figures = LiveFigures(0.0)
    old, fast = {0.1: 0.0, 1.0: 90.0, math.inf: 90.0}, {0.1: 10.0, 1.0: 100.0, math.inf: 100.0}
    figures.tick(1.0, 1000, GAUGES, old)
    told = figures.tick(2.0, 2000, GAUGES, fast)
    assert told.freshness_p50_ms == pytest.approx(50)
    for second in range(2, 2 + WINDOW):
        told = figures.tick(second + 1.0, second * 1000, GAUGES, fast)
    assert math.isnan(told.freshness_p99_ms)


def test_memory_is_bounded():
    """Of a second with very many requests all are counted and only some measured; charts keep three minutes."""
    figures = LiveFigures(0.0)
    told = seconds(figures, 1, per_second=KEPT_PER_SECOND + 10)
    assert told.answered == told.point.requests_per_s == KEPT_PER_SECOND + 10
    assert told.candidates_per_s == KEPT_PER_SECOND
    seconds(figures, HISTORY + 5, start=1)
    assert len(figures.history) == HISTORY
    assert figures.history[-1].at_ms == (HISTORY + 6) * 1000


def test_the_latest_request_of_a_second_is_its_example():
    """It is let go with the second, so that a quiet worker holds no request."""
    figures = LiveFigures(0.0)
    last = job()
    figures.note(job())
    figures.note(last)
    assert figures.latest is last
    figures.tick(1.0, 1000, GAUGES, {})
    assert figures.latest is None
