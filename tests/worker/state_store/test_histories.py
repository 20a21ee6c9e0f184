"""Histories in shared columns, against a dictionary of lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.prompt_limits import LONGEST_HISTORY
from worker.state_store.histories import _SIZES, Histories

_ROWS = 12
_BATCHES = st.lists(
    st.dictionaries(
        st.integers(0, _ROWS - 1),
        st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 255)), max_size=70),
        min_size=1,
        max_size=6,
    ),
    max_size=25,
)


def _put(histories, batch):
    entries = [entry for one in batch.values() for entry, _ in one]
    grades = [grade for one in batch.values() for _, grade in one]
    histories.put(
        np.array(list(batch)),
        np.array([len(one) for one in batch.values()]),
        np.array(entries, np.int64),
        np.array(grades, np.uint8),
    )


@settings(max_examples=150)
@given(_BATCHES)
def test_a_row_has_the_history_that_was_put_last(batches):
    """Longer, shorter, none at all; blocks that were given up are used again."""
    histories, model = Histories(), {row: [] for row in range(_ROWS)}
    histories.grow(_ROWS)
    for batch in batches:
        _put(histories, batch)
        model |= batch
        for row, history in model.items():
            entries, grades = histories.of(row)
            assert list(zip(entries.tolist(), grades.tolist(), strict=True)) == history
    asked = np.array([3, 0, 7])
    entries, places = histories.entries_of(asked)
    assert entries.tolist() == [entry for row in asked.tolist() for entry, _ in model[row]]
    assert places.tolist() == [place for place, row in enumerate(asked.tolist()) for _ in model[row]]


def test_blocks_are_used_again():
    """Histories that grow and shrink for ever take no more memory."""
    histories = Histories()
    histories.grow(50)
    for round_ in range(300):
        _put(histories, {row: [(1, 1)] * ((7 * row + round_) % 60) for row in range(50)})

    assert histories._end < 50 * 60 * 3


@pytest.mark.parametrize("length", [1, 4, 5, 32, 33, 50, 200, 9_999, LONGEST_HISTORY])
def test_a_block_wastes_little(length):
    """An eighth of its own, or three interactions."""
    size = int(_SIZES[np.searchsorted(_SIZES, length)])

    assert length <= size <= max(length + 3, 1.15 * length + 4)
