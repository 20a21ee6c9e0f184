"""Halving: whatever fails, everything else runs, once."""

from __future__ import annotations

from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.isolation import isolated


@given(size=st.integers(0, 40), data=st.data())
def test_all_but_the_items_that_fail_run_once_and_in_order(size, data):
    """Each item is in exactly one result or told as failed, with its error; order is kept."""
    bad = data.draw(st.sets(st.integers(0, max(size - 1, 0))))
    told = {}

    def run(items):
        poison = [item for item in items if item in bad]
        if poison:
            raise MemoryError(poison)
        return sum(items)

    results = list(isolated(range(size), run, lambda item, error: told.update({item: error})))

    ran = [item for items, _ in results for item in items]
    assert ran == [item for item in range(size) if item not in bad]
    assert all(result == sum(items) for items, result in results)
    assert set(told) == {item for item in bad if item < size}
    assert all(isinstance(error, MemoryError) and error.args == ([item],) for item, error in told.items())


@given(size=st.integers(1, 200), data=st.data())
def test_one_bad_item_costs_few_runs(size, data):
    """Logarithmically many, so that a poison request does not hold up the others."""
    bad = data.draw(st.integers(0, size - 1))
    runs = []

    def run(items):
        runs.append(len(items))
        if bad in items:
            raise RuntimeError("can't allocate memory")

    list(isolated(range(size), run, lambda _item, _error: None))

    assert len(runs) <= 2 * ceil(log2(size)) + 1 if size > 1 else len(runs) == 1


def test_what_succeeds_is_handed_out_before_the_next_run():
    """A result can be used while the rest has still to run: nothing waits for the poison."""
    events = []

    def run(items):
        events.append(("run", *items))
        if 1 in items:
            raise RuntimeError
        return items

    for items, _ in isolated([0, 1, 2, 3], run, lambda item, _error: events.append(("failed", item))):
        events.append(("got", *items))

    assert events == [
        ("run", 0, 1, 2, 3),
        ("run", 0, 1),
        ("run", 0),
        ("got", 0),
        ("run", 1),
        ("failed", 1),
        ("run", 2, 3),
        ("got", 2, 3),
    ]
