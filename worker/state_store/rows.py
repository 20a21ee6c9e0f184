"""Row numbers for ids, and columns that grow with them: no Python object per entry but its id."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN_ROW = -1
_FIRST_CAPACITY = 64


class RowIds:
    """A row number for every id, dense from 0; rows of removed ids are used again."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._ids: list[str] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def high_water(self) -> int:
        """One more than the largest row ever used: the length that columns need."""
        return len(self._ids)

    def row(self, name: str) -> int:
        """The id's row, or UNKNOWN_ROW."""
        return self._rows.get(name, UNKNOWN_ROW)

    def id_of(self, row: int) -> str:
        """The id that holds a row."""
        return self._ids[row]

    def intern(self, name: str) -> int:
        """The id's row, assigned now if it had none."""
        known = self._rows.get(name)
        if known is not None:
            return known
        if self._free:
            row = self._free.pop()
            self._ids[row] = name
        else:
            row = len(self._ids)
            self._ids.append(name)
        self._rows[name] = row
        return row

    def forget(self, name: str) -> int:
        """Frees the id's row and returns it; UNKNOWN_ROW if it had none."""
        row = self._rows.pop(name, UNKNOWN_ROW)
        if row != UNKNOWN_ROW:
            self._ids[row] = ""
            self._free.append(row)
        return row


def grown(column: NDArray[Any], rows: int, fill: float = 0) -> NDArray[Any]:
    """The column with room for `rows` rows: itself, or a copy longer by a half at least, filled up with `fill`.

    Memory that zeros fill is taken from the system when it is first used.
    """
    if rows <= len(column):
        return column
    shape = (max(rows, len(column) + len(column) // 2, _FIRST_CAPACITY), *column.shape[1:])
    larger = np.zeros(shape, column.dtype) if fill == 0 else np.full(shape, fill, column.dtype)
    larger[: len(column)] = column
    return larger
