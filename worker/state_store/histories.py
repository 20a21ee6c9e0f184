"""Users' histories, each in one block of two shared columns: five bytes an interaction, no Python object.

Blocks have sizes that grow by an eighth, in fours, so that a history wastes little of its own. One that no longer fits
moves to another block; the old one waits for the next history of its size.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.prompt_limits import LONGEST_HISTORY
from runtime.arrays import grow

Cells = NDArray[np.int64]


def _sizes(longest: int) -> NDArray[np.int64]:
    """0, then sizes of blocks up to the longest history."""
    sizes = [0, 4]
    while sizes[-1] < longest:
        sizes.append(-(-sizes[-1] * 9 // 32) * 4 if sizes[-1] >= 32 else sizes[-1] + 4)
    return np.array(sizes, np.int64)


_SIZES: Final = _sizes(LONGEST_HISTORY)
NO_BLOCK: Final = 0
"""The class of an empty history."""


class Histories:
    """Histories by row, oldest interaction first.

    Attributes:
        lengths: (rows,) interactions.
    """

    def __init__(self) -> None:
        self.lengths: NDArray[np.int32] = np.zeros(0, np.int32)
        self._starts: NDArray[np.int64] = np.zeros(0, np.int64)
        self._classes: NDArray[np.int16] = np.zeros(0, np.int16)  # index into _SIZES
        self._entries: NDArray[np.int32] = np.zeros(0, np.int32)  # 2 × the item's row + 1 if positive
        self._grades: NDArray[np.uint8] = np.zeros(0, np.uint8)  # up to FULL_GRADE
        self._end = 0
        self._free: dict[int, list[int]] = {}

    def grow(self, rows: int) -> None:
        """Makes room for rows; new ones are empty."""
        grow(self.lengths, rows)
        grow(self._starts, rows)
        grow(self._classes, rows)

    def of(self, row: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Entries (2 × the item's row + 1 if positive) and grades of one row; copies."""
        start = int(self._starts[row])
        cells = slice(start, start + int(self.lengths[row]))
        return self._entries[cells].astype(np.int64), self._grades[cells].copy()

    def entries_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Entries of rows, end to end, and for each entry the place of its row among `rows`."""
        cells, lengths = self._cells(rows)
        return self._entries[cells], np.repeat(np.arange(len(rows)), lengths)

    def grades_of(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Grades of rows, end to end."""
        return self._grades[self._cells(rows)[0]]

    def put(
        self, rows: NDArray[np.int64], lengths: NDArray[np.int64], entries: NDArray[np.int64], grades: NDArray[np.uint8]
    ) -> None:
        """Replaces histories.

        Args:
            rows: (n,) distinct.
            lengths: (n,) of the new histories, at most `LONGEST_HISTORY` each.
            entries: of all of them, end to end.
            grades: the same.
        """
        classes = np.searchsorted(_SIZES, lengths)
        moves = np.flatnonzero(classes != self._classes[rows])
        if len(moves):
            self._release(rows[moves])
            self._starts[rows[moves]] = self._take(classes[moves])
            self._classes[rows[moves]] = classes[moves]
        self.lengths[rows] = lengths
        cells, _ = self._cells(rows)
        self._entries[cells] = entries
        self._grades[cells] = grades

    def _cells(self, rows: NDArray[np.int64]) -> tuple[Cells, NDArray[np.int64]]:
        lengths = self.lengths[rows].astype(np.int64)
        before = np.cumsum(lengths) - lengths
        return np.arange(lengths.sum()) + np.repeat(self._starts[rows] - before, lengths), lengths

    def _release(self, rows: NDArray[np.int64]) -> None:
        """Their blocks may be used again."""
        classes = self._classes[rows]
        for size_class in np.unique(classes[classes != NO_BLOCK]).tolist():
            self._free.setdefault(size_class, []).extend(self._starts[rows[classes == size_class]].tolist())

    def _take(self, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Blocks of these sizes: free ones, then new ones behind all others."""
        starts = np.full(len(classes), -1, np.int64)
        for size_class in [known for known, free in self._free.items() if free]:
            wanted = np.flatnonzero(classes == size_class)
            free = self._free[size_class]
            taken = free[-len(wanted) :] if len(wanted) else []
            del free[len(free) - len(taken) :]
            starts[wanted[: len(taken)]] = taken
        new = np.flatnonzero(starts < 0)
        ends = self._end + np.cumsum(_SIZES[classes[new]])
        starts[new] = ends - _SIZES[classes[new]]
        if len(new):
            self._end = int(ends[-1])
            grow(self._entries, self._end)
            grow(self._grades, self._end)
        return starts
