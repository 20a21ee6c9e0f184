"""The measured frontier agrees with scoring each candidate on its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.frontier import measured_frontier, spread_thresholds
from evaluation.metrics import auc, log_loss

rates = st.floats(0.01, 0.99)
candidates = st.lists(
    st.tuples(st.booleans(), st.tuples(rates, rates, rates), st.integers(0, 2)), min_size=1, max_size=30
)


@given(candidates)
def test_a_point_is_the_quality_of_the_answers_where_candidates_leave(examples):
    """Each candidate's answer is that of its own head; AUC, log loss and work are those of these answers."""
    labels, ctrs, heads = zip(*examples, strict=True)

    (point,) = measured_frontier(labels, np.array(ctrs), [(0.5, np.array(heads))], lambda at: float(at.sum()))

    answers = [row[head] for _, row, head in examples]
    assert point.threshold == 0.5
    assert point.auc == pytest.approx(auc(labels, answers), nan_ok=True)
    assert point.log_loss == pytest.approx(log_loss(labels, answers))
    assert point.token_layer_share == sum(heads)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.just(1.0)), min_size=1, max_size=50),
    st.floats(0, 0.5),
    st.floats(0.5, 1),
    st.integers(3, 20),
)
def test_thresholds_rise_from_floor_to_never_with_the_base_among_them(rows, floor, base, count):
    """Ends and base are always there; the others are early confidences' quantiles, so they lie between them."""
    found = spread_thresholds(np.array(rows), floor, 1.0, base, count)

    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (floor, 1.0)
    assert base in found
    assert len(found) <= count + 1
    early = [value for row in rows for value in row[:2]]
    assert all(min(early) <= one <= max(early) for one in found if one not in {floor, base, 1.0})


def test_a_model_without_early_heads_has_only_the_ends():
    """There is nothing to spread thresholds over."""
    assert spread_thresholds(np.ones((3, 1)), 0.0, 1.0, 1.0) == [0.0, 1.0]
