"""Which head answers a typed request in time."""

from __future__ import annotations

import pytest

from worker.live.ladder import ReachedHead, answer_within
from worker.live.typed import head_times_ms

HEADS = [ReachedHead(1, 0.1, 0.2, 10.0), ReachedHead(2, 0.2, 0.8, 20.0), ReachedHead(4, 0.4, 1.0, 40.0)]


@pytest.mark.parametrize(
    ("threshold", "budget_ms", "made_by", "layer", "ctr"),
    [
        (0.9, 100, "final", 4, 0.4),
        (0.8, 100, "confident", 2, 0.2),
        (0.2, 100, "confident", 1, 0.1),
        (0.9, 40, "final", 4, 0.4),
        (0.9, 39, "deadline", 2, 0.2),
        (0.9, 15, "deadline", 1, 0.1),
        (0.1, 9, "graph", 0, 0.05),
        (0.1, 0, "graph", 0, 0.05),
    ],
)
def test_the_ladder_is_that_of_the_engine(threshold, budget_ms, made_by, layer, ctr):
    """The first confident head in time, else the deepest in time, else the graph."""
    rung = answer_within(HEADS, 0.05, threshold, budget_ms)

    assert (rung.made_by, rung.layer, rung.ctr) == (made_by, layer, ctr)
    assert rung.reason


def test_a_head_is_reached_when_all_steps_before_it_are_done():
    """Retrieval and prompt come before every head; of a long request each stage has several steps."""
    spent = [("retrieve", 0.001), ("prompt", 0.002), ("head 0", 0.01), ("head 1", 0.02), ("head 0", 0.01)]

    assert head_times_ms(spent, 2) == pytest.approx([23.0, 43.0])
