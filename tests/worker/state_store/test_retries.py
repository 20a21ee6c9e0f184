"""Pauses that grow while something fails."""

from __future__ import annotations

from worker.state_store.retries import FIRST_PAUSE_S, LONGEST_PAUSE_S, Retries


def test_pauses_double_up_to_a_bound_and_a_success_ends_them():
    """Due at once, then after 5, 10, 20 ... 300 s; after a success due at once again."""
    now_s = 100.0
    retries = Retries(lambda: now_s)
    pauses = []
    for _ in range(9):
        assert retries.is_due
        retries.failed()
        pauses.append(retries.pause_s)
        now_s += retries.pause_s - 0.001
        assert not retries.is_due
        now_s += 0.001

    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert retries.failing_for_s == sum(pauses)
    assert retries.failures == 9
    retries.succeeded()
    assert retries.is_due
    assert retries.failing_for_s == retries.pause_s == 0
    assert retries.failures == 9
