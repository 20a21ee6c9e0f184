"""Figures are written so that they say no more than was measured."""

from benchmarks.markdown import difference, percent, rounded_down, table


def test_a_hundred_per_cent_means_all():
    """A share near 1 is rounded down."""
    assert [rounded_down(share) for share in (1.0, 0.99999, 0.9998, 0.985)] == ["100 %", "99.99 %", "99.98 %", "98.5 %"]


def test_a_small_share_is_not_nothing():
    """Below one per cent a decimal tells it from zero."""
    assert [percent(share) for share in (0.0, 0.003, 0.19, 1.0)] == ["0 %", "0.3 %", "19 %", "100 %"]


def test_a_difference_shows_its_sign_and_interval():
    """Four decimals, as the AUCs beside it."""
    assert difference({"difference": 0.00231, "low": -0.0001, "high": 0.0046}) == "+0.0023 [-0.0001, +0.0046]"


def test_short_rows_are_filled_up():
    """A row without a goal still has a cell for it."""
    assert table(("figure", "goal"), [("a",), ("b", "2 s")]).splitlines()[2:] == ["| a | |", "| b | 2 s |"]
