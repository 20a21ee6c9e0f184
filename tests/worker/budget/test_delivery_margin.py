"""The time kept back for writing scores and reading them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.budget.delivery_margin import DeliveryMargin


@given(st.lists(st.floats(0, 10), max_size=700))
def test_it_stays_within_its_bounds(times):
    """Whatever is observed."""
    margin = DeliveryMargin(0.01, 0.02, 0.1)
    for seconds in times:
        margin.observe(seconds)

    assert 0.01 <= margin.seconds <= 0.1


def test_it_begins_with_a_guess():
    """Before anything was written, and while that was little."""
    margin = DeliveryMargin(0.01, 0.02, 0.1)
    margin.observe(0.001)

    assert margin.seconds == pytest.approx(0.03)


def test_it_follows_slow_deliveries_and_forgets_them():
    """Nearly all deliveries and the reading must fit into it; a slow phase that has passed costs nothing any more."""
    margin = DeliveryMargin(0.005, 0.01, 0.1)
    for _ in range(200):
        margin.observe(0.03)
    assert margin.seconds == pytest.approx(0.035)

    for _ in range(600):
        margin.observe(0.002)
    assert margin.seconds == pytest.approx(0.007)


def test_a_single_slow_delivery_changes_little():
    """One stall in hundreds is no reason to give every answer less depth."""
    margin = DeliveryMargin(0.005, 0.01, 0.1)
    for number in range(512):
        margin.observe(0.09 if number == 100 else 0.008)

    assert margin.seconds == pytest.approx(0.013)


def test_it_learns_after_every_thirty_two_deliveries():
    """Thirty-one leave the guess as it is; then each thirty-second one takes in all up to it."""
    margin = DeliveryMargin(0.5, 0.25, 10.0)
    for _ in range(31):
        margin.observe(1.0)
    assert margin.seconds == 0.75
    margin.observe(1.0)
    assert margin.seconds == 1.5
    for _ in range(31):
        margin.observe(4.0)
    assert margin.seconds == 1.5
    margin.observe(4.0)
    assert margin.seconds == 4.5


def test_it_is_the_99th_percentile_of_the_last_512_deliveries():
    """Of 512 different times all but five lie below it; the 513th pushes the first out."""
    margin = DeliveryMargin(1.0, 0.0, 10_000.0)
    for seconds in np.random.default_rng(1).permutation(512):
        margin.observe(float(seconds))
    assert margin.seconds == pytest.approx(1.0 + 0.99 * 511)
    for _ in range(480):
        margin.observe(0.0)
    assert margin.seconds > 1.0
    for _ in range(32):
        margin.observe(0.0)
    assert margin.seconds == 1.0


def test_reading_is_never_cut_short():
    """A bound below what readers need is raised to it."""
    margin = DeliveryMargin(0.5, 0.25, 0.125)
    assert margin.seconds == 0.5
    for _ in range(32):
        margin.observe(1.0)
    assert margin.seconds == 0.5
