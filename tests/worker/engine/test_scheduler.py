"""Who runs next and who must leave, with plain numbers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.messages import QualityFloor
from worker.engine.scheduler import Entry, next_batch, order_of, out_of_time

STAGES = 3


def entry(ticket: int, deadline_s: float, tokens: int = 10, depth: int = 0, floor: QualityFloor = "graph") -> Entry:
    """A request whose place in the queue is its deadline."""
    return Entry(ticket, deadline_s, deadline_s, floor, 0, tokens, depth)


def free(_stage: int, _tokens: int) -> float:
    """Stages that take no time."""
    return 0.0


def a_second_per_token(_stage: int, tokens: int) -> float:
    """Stages that take long."""
    return float(tokens)


def tickets(batch: list[Entry]) -> list[int]:
    """Who is in a batch."""
    return [member.ticket for member in batch]


def test_the_most_urgent_says_which_stage_runs():
    """The earliest deadline runs, with those that stand at its depth; others wait."""
    waiting = [entry(0, 9.0), entry(1, 5.0, depth=1), entry(2, 7.0, depth=1), entry(3, 6.0)]
    assert tickets(next_batch(waiting, 0.0, 100, free)) == [1, 2]


def test_a_batch_is_bounded_in_tokens_but_filled():
    """Whoever does not fit is passed over for a smaller one behind."""
    waiting = [entry(0, 1.0, 60), entry(1, 2.0, 60), entry(2, 3.0, 40)]
    assert tickets(next_batch(waiting, 0.0, 100, free)) == [0, 2]


def test_one_request_runs_however_large():
    """A request beyond the bound runs by itself."""
    assert tickets(next_batch([entry(0, 1.0, 500), entry(1, 2.0, 1)], 0.0, 100, free)) == [0]


def test_company_must_not_make_anyone_late():
    """A batch stops growing where its end would pass a member's deadline."""
    waiting = [entry(0, 25.0), entry(1, 30.0), entry(2, 35.0)]
    assert tickets(next_batch(waiting, 0.0, 100, a_second_per_token)) == [0, 1]


def test_the_late_run_together():
    """Where all are late anyway, only throughput counts."""
    waiting = [entry(ticket, 1.0, floor="final_head") for ticket in range(4)]
    assert len(next_batch(waiting, 50.0, 100, a_second_per_token)) == 4


def test_no_entries_make_no_batch():
    """An idle scheduler picks nobody."""
    assert next_batch([], 0.0, 100, free) == []


def test_who_cannot_finish_another_stage_leaves():
    """Those whose next stage would end after their deadline are out of time, at any depth."""
    waiting = [entry(0, 9.9), entry(1, 10.1), entry(2, 9.9, depth=2)]
    assert tickets(out_of_time(waiting, 0.0, a_second_per_token)) == [0, 2]


def test_a_quality_floor_keeps_the_late_in():
    """With a floor a request stays until it has the head it asks for, rather late."""
    waiting = [
        entry(0, 1.0, floor="first_head"),
        entry(1, 1.0, depth=1, floor="first_head"),
        entry(2, 1.0, depth=2, floor="final_head"),
    ]
    assert tickets(out_of_time(waiting, 5.0, free)) == [1]


def test_the_order_lies_between_arrival_and_patience():
    """A deadline in the past counts as now, one far ahead as the end of the patience."""
    assert order_of(3.0, submitted_s=10.0, patience_s=60.0) == 10.0
    assert order_of(12.0, submitted_s=10.0, patience_s=60.0) == 12.0
    assert order_of(1e9, submitted_s=10.0, patience_s=60.0) == 70.0


arrivals = st.lists(st.tuples(st.integers(0, 20), st.floats(-50, 500), st.integers(1, 150)), min_size=1, max_size=25)


@settings(max_examples=60)
@given(arrivals, st.integers(1, 4))
def test_nobody_starves(requests, per_step):
    """Whatever the deadlines of those who come, a request is overtaken only by those that came before its order.

    Time goes on by one second a step; requests arrive over time and pass all stages.
    """
    patience_s, present, done = 10.0, [], {}
    pending = sorted(requests)
    now_s, ticket = 0.0, 0
    while pending or present:
        for _ in range(per_step):
            if pending and pending[0][0] <= now_s:
                _, slack_s, tokens = pending.pop(0)
                deadline_s = now_s + slack_s
                order_s = order_of(deadline_s, now_s, patience_s)
                present.append(Entry(ticket, deadline_s, order_s, "final_head", 0, tokens))
                assert order_s <= now_s + patience_s
                ticket += 1
        batch = next_batch(present, now_s, 100, free)
        if present:
            first = min(present, key=lambda waiting: (waiting.order_s, waiting.ticket))
            assert batch[0] is first
            assert len(batch) == 1 or sum(member.tokens for member in batch) <= 100
            assert len({member.depth for member in batch}) == 1
        for member in batch:
            member.depth += 1
            if member.depth == STAGES:
                done[member.ticket] = now_s
                present.remove(member)
        now_s += 1.0
    assert len(done) == len(requests)
