"""Row numbers of ids, and columns that grow."""

from __future__ import annotations

import numpy as np

from worker.state_store.rows import UNKNOWN_ROW, RowIds, grown


def test_rows_are_dense_and_stay():
    """Every id keeps the row it was first given; rows count up from 0."""
    ids = RowIds()

    assert [ids.intern(name) for name in ("a", "ü", "a", "🎬")] == [0, 1, 0, 2]
    assert ids.row("🎬") == 2
    assert ids.id_of(1) == "ü"
    assert ids.row("nobody") == UNKNOWN_ROW


def test_a_forgotten_row_is_given_out_again():
    """Once nobody refers to it: tables do not grow when ids come and go."""
    ids = RowIds()
    for name in ("a", "b", "c"):
        ids.intern(name)

    assert ids.forget("b") == 1
    assert ids.forget("b") == UNKNOWN_ROW
    assert ids.intern("d") == 3
    ids.reuse()
    assert ids.intern("e") == 1
    assert (len(ids), ids.high_water) == (4, 4)


def test_columns_keep_their_content_when_they_grow():
    """Old rows stay, new ones hold the fill, and room grows by more than is asked for."""
    column = grown(np.array([[1, 2], [3, 4]]), 3, fill=-1)

    assert column[:2].tolist() == [[1, 2], [3, 4]]
    assert (column[2:] == -1).all()
    assert grown(column, 3) is column
