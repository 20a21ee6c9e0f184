"""Texts by row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import text_column
from runtime.text_column import TextColumn


@given(
    st.lists(st.dictionaries(st.integers(0, 30), st.binary(max_size=20), min_size=1, max_size=8), max_size=30),
    st.integers(1, 40),
)
def test_a_row_has_the_text_that_was_set_last(batches, moved_at_once):
    """Against a dictionary, while what was replaced is tidied away again and again."""
    column, model = TextColumn(), {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text_column, "_LEAST_GARBAGE", 10)
        patched.setattr(text_column, "_MOVED_AT_ONCE", moved_at_once)
        for batch in batches:
            column.put(np.array(list(batch)), list(batch.values()))
            model |= batch
            assert {row: column.get(row) for row in model} == model
            assert column.get_many(np.array(list(model))) == list(model.values())
            octets, lengths = column.part(0, 31)
            assert octets.tobytes() == b"".join(model.get(row, b"") for row in range(31))
            assert int(lengths.sum()) == len(octets)


def test_what_is_replaced_takes_no_memory_for_long():
    """However often a row's text changes."""
    column = TextColumn()
    for _ in range(200):
        column.put(np.arange(100), [b"x" * 1_000] * 100)

    assert column.octets.nbytes < 3_000_000


def test_memory_follows_what_is_there_although_it_is_tidied_a_little_at_a_time():
    """With many more rows than are moved at once; nearly all of them are emptied."""
    column = TextColumn()
    count = 20 * text_column._MOVED_AT_ONCE
    column.put(np.arange(count), [b"a name of a user"] * count)
    full = column.octets.nbytes
    for start in range(0, count - 1_000, 256):
        column.put(np.arange(start, start + 256), [b""] * 256)

    assert column.octets.nbytes < full / 4
    assert column.get(count - 1) == b"a name of a user"
