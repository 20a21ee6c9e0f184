"""Rows by hash, against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.state_store.hash_rows import HashRows
from worker.state_store.rows import UNKNOWN_ROW

_CLOSE = st.integers(0, 40).map(lambda number: number * 64 + number % 3)
"""Hashes that want few slots of a small table."""
_HASHES = st.one_of(_CLOSE, st.integers(0, 2**64 - 1))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.lists(_HASHES, max_size=60, unique=True)), max_size=25))
def test_it_finds_what_a_dictionary_finds(steps):
    """After any adding and removing, many at once and one by one."""
    table, model, row = HashRows(), {}, 0
    for add, hashes in steps:
        asked = np.array(hashes, np.uint64)
        if add:
            new = [one for one in hashes if one not in model]
            model |= {one: row + at for at, one in enumerate(new)}
            if len(new) % 2:
                for one in new:
                    table.add_one(one, model[one])
            else:
                table.add(np.array(new, np.uint64), np.arange(row, row + len(new)))
            row += len(new)
        else:
            there = [one for one in hashes if one in model]
            table.remove(np.array(there, np.uint64))
            for one in there:
                del model[one]
        assert table.find(asked).tolist() == [model.get(one, UNKNOWN_ROW) for one in hashes]
        assert [table.find_one(one) for one in hashes] == [model.get(one, UNKNOWN_ROW) for one in hashes]
    everything = np.array(list(model), np.uint64)
    assert table.find(everything).tolist() == list(model.values())


def test_coming_and_going_does_not_fill_the_table():
    """Slots of removed ids are given up when the table is laid out anew."""
    table = HashRows()
    for round_ in range(500):
        hashes = np.arange(round_ * 20, round_ * 20 + 20).astype(np.uint64)
        table.add(hashes, np.arange(20))
        table.remove(hashes)

    assert len(table._slots) <= 256
    assert (table.find(np.arange(100).astype(np.uint64)) == UNKNOWN_ROW).all()
