"""Arrivals are drawn so that every worker can be given the same ones."""

import numpy as np

from loadgen.open_loop import poisson


def test_so_many_arrivals_come_within_the_time_in_order():
    """Exactly the wanted number of arrivals, ascending, none before the start or after the end."""
    times = poisson(1_000, 5.0, np.random.default_rng(0), start_s=2.0)
    assert len(times) == 1_000
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 2.0
    assert times[-1] <= 7.0


def test_gaps_between_arrivals_spread_as_in_a_poisson_process():
    """Their standard deviation is about their mean; at even intervals it would be zero."""
    gaps = np.diff(poisson(20_000, 100.0, np.random.default_rng(1)))
    assert abs(gaps.std() / gaps.mean() - 1) < 0.05
