"""Texts by row."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime import text_column
from runtime.text_column import TextColumn


@given(st.lists(st.dictionaries(st.integers(0, 30), st.binary(max_size=20), min_size=1, max_size=8), max_size=30))
def test_a_row_has_the_text_that_was_set_last(batches):
    """Against a dictionary, while what was replaced is tidied away again and again."""
    column, model = TextColumn(), {}
    before, text_column._LEAST_GARBAGE = text_column._LEAST_GARBAGE, 10
    try:
        for batch in batches:
            column.put(np.array(list(batch)), list(batch.values()))
            model |= batch
            assert {row: column.get(row) for row in model} == model
            assert column.get_many(np.array(list(model))) == list(model.values())
    finally:
        text_column._LEAST_GARBAGE = before


def test_what_is_replaced_takes_no_memory_for_long():
    """However often a row's text changes."""
    column = TextColumn()
    for _ in range(200):
        column.put(np.arange(100), [b"x" * 1_000] * 100)

    assert column.octets.nbytes < 3_000_000
