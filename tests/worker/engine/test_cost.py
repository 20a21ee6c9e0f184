"""Predicting how long a stage takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.cost import LARGEST_SURPRISE, CostTable


@pytest.fixture
def table() -> CostTable:
    """Three sizes, two stages; one measurement of the second came out too fast."""
    return CostTable([100, 200, 400], np.array([[1.0, 2.0, 4.0], [3.0, 2.5, 6.0]]))


def test_between_measurements_the_curve_is_straight_and_beyond_proportional(table):
    """Sizes in between are interpolated, larger ones taken at the last rate, smaller ones at the least seen."""
    assert table.seconds(0, 150) == pytest.approx(1.5)
    assert table.seconds(0, 800) == pytest.approx(8.0)
    assert table.seconds(0, 1) == pytest.approx(1.0)


def test_more_tokens_never_cost_less(table):
    """A larger size that happened to be measured faster is taken for as slow as the smaller."""
    assert table.seconds(1, 200) == pytest.approx(3.0)


def test_the_rest_of_the_way_is_the_sum_of_its_stages(table):
    """From depth 0 all stages are ahead, from the last depth one, behind it none."""
    assert table.seconds_to_end(0, 400) == pytest.approx(10.0)
    assert table.seconds_to_end(1, 400) == pytest.approx(6.0)
    assert table.seconds_to_end(2, 400) == 0.0


def test_throughput_is_that_of_the_largest_size(table):
    """Tokens per second come from the size at which overheads weigh least."""
    assert table.tokens_per_second(0) == pytest.approx(100.0)


def test_the_table_follows_a_machine_that_slows_down(table):
    """After some dozens of stages at double the time, predictions have doubled, at every size of that stage alone."""
    for _ in range(60):
        table.observe(0, 100, 2.0)
    assert table.seconds(0, 400) == pytest.approx(8.0, rel=0.02)
    assert table.seconds(1, 100) == pytest.approx(3.0)


def test_one_pause_is_no_trend(table):
    """A single stage that took a thousand times as long moves the prediction only a little."""
    table.observe(0, 100, 1000.0)
    assert table.seconds(0, 100) <= LARGEST_SURPRISE**0.1 + 1e-9


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_predictions_grow_with_tokens(few, many):
    """The prediction never falls with the number of tokens."""
    table = CostTable([100, 200], np.array([[1.0, 1.7]]))
    assert table.seconds(0, min(few, many)) <= table.seconds(0, max(few, many))


@pytest.mark.parametrize(
    ("sizes", "seconds"),
    [([], np.zeros((1, 0))), ([2, 1], np.ones((1, 2))), ([1], np.zeros((1, 1))), ([1, 2], np.ones((1, 3)))],
)
def test_nonsense_is_refused(sizes, seconds):
    """Sizes must ascend, times be positive, shapes match."""
    with pytest.raises(ValueError, match="sizes"):
        CostTable(sizes, seconds)
