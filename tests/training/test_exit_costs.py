"""Where candidates exit, and what it costs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.exit_costs import TokenCosts, answers_at, exit_heads

CONFIDENCE = np.array([[0.9, 0.2, 1.0], [0.5, 0.7, 1.0], [0.1, 0.2, 1.0]])


def test_a_candidate_leaves_at_the_first_head_that_reaches_the_threshold():
    """Equality suffices; without reaching it, a candidate goes to the final head."""
    assert exit_heads(CONFIDENCE, 0.7).tolist() == [0, 1, 2]
    assert exit_heads(CONFIDENCE, 0.0).tolist() == [0, 0, 0]
    assert exit_heads(CONFIDENCE, 2.0).tolist() == [2, 2, 2]


def test_the_answer_is_that_of_the_head_where_one_left():
    """Rows keep their order."""
    ctrs = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert answers_at(ctrs, np.array([2, 0])).tolist() == [0.3, 0.4]


def test_a_prefix_runs_as_deep_as_its_deepest_candidate():
    """Two candidates share a prefix of 10 tokens; one leaves at the first head, the other at the third, after layer 4.

    Whole are the layers before a head's own; of that one only the answer's token is run.
    """
    costs = TokenCosts(np.array([5, 5]), np.array([10]), np.array([0]))
    executed = 5 * 3 + 10 * 3 + (1 + 3)
    assert costs.share((1, 2, 4), np.array([0, 2])) == pytest.approx(executed / (20 * 3 + 2 * 3))
    assert costs.share((1, 2, 4), np.array([2, 2])) == 1.0


@given(st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4), min_size=1))
def test_groups_joined_cost_what_their_parts_cost_together(groups):
    """Rows of later groups move up by the candidates before them; only then do prefixes stay with their candidates."""
    parts = [
        TokenCosts(
            np.array([suffix for suffix, _ in group for _ in range(2)]),
            np.array([prefix for _, prefix in group]),
            np.arange(len(group)) * 2,
        )
        for group in groups
    ]
    joined = TokenCosts.joined(parts)

    everyone = [prefix for group in groups for _, prefix in group]
    assert joined.prefix_tokens.tolist() == everyone
    assert joined.first_candidate.tolist() == [2 * example for example in range(len(everyone))]
    assert joined.suffix_tokens.tolist() == [suffix for group in groups for suffix, _ in group for _ in range(2)]
