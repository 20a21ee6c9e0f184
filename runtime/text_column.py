"""Short texts by row in one array of bytes: no Python object for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from runtime.arrays import grow

_LEAST_GARBAGE: Final = 1 << 20
"""Bytes of texts that have been replaced, below which the array is not worth tidying."""
_MOVED_AT_ONCE: Final = 4_096
"""Rows; about a tenth of a millisecond."""


class TextColumn:
    """Texts by row. Row i's is `octets[start[i] : start[i] + length[i]]`; one that was never set is empty.

    Attributes:
        octets: of all texts, and of some that have been replaced.
        start: (rows,).
        length: (rows,).
    """

    def __init__(self) -> None:
        self.octets: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.start: NDArray[np.int64] = np.zeros(0, np.int64)
        self.length: NDArray[np.uint16] = np.zeros(0, np.uint16)
        self._end = 0
        self._garbage = 0
        # While texts are tidied: all before the boundary is given up once the rows up to the last have been moved.
        self._boundary = 0
        self._moved = 0
        self._garbage_behind = 0

    def get(self, row: int) -> bytes:
        """The text of a row below the largest ever set."""
        start = int(self.start[row])
        return self.octets[start : start + int(self.length[row])].tobytes()

    def get_many(self, rows: NDArray[np.int64]) -> list[bytes]:
        """The texts of rows below the largest ever set."""
        starts = self.start[rows]
        ends, octets = (starts + self.length[rows]).tolist(), self.octets.data
        return [bytes(octets[start:end]) for start, end in zip(starts.tolist(), ends, strict=True)]

    def part(self, start: int, end: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """The texts of rows from `start` to `end`, end to end, and their lengths."""
        lengths = self.length[start:end].astype(np.int64)
        before = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) + np.repeat(self.start[start:end] - before, lengths)
        return self.octets[places], lengths.astype(np.int32)

    def put(self, rows: NDArray[np.int64], texts: Sequence[bytes]) -> None:
        """Sets the texts of distinct rows; each is at most 65,535 bytes."""
        if not len(rows):
            return
        for column in (self.start, self.length):
            grow(column, int(rows.max()) + 1)
        replaced = self.length[rows].astype(np.int64)
        self._garbage += int(replaced.sum())
        self._garbage_behind += int(replaced[self.start[rows] >= self._boundary].sum())
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        self._append(rows, lengths, np.frombuffer(b"".join(texts), np.uint8))
        if not self._boundary and self._garbage > max(_LEAST_GARBAGE, self._end // 2):
            self._boundary, self._moved, self._garbage_behind = self._end, 0, 0
        if self._boundary:
            self._tidy_some()

    def _append(self, rows: NDArray[np.int64], lengths: NDArray[np.int64], octets: NDArray[np.uint8]) -> None:
        """Writes texts, end to end, behind all others."""
        grow(self.octets, self._end + len(octets))
        self.octets[self._end : self._end + len(octets)] = octets
        self.start[rows] = self._end + np.cumsum(lengths) - lengths
        self.length[rows] = lengths
        self._end += len(octets)

    def _tidy_some(self) -> None:
        """Writes some of the texts before the boundary again, behind it; once none is left before, that part goes. All
        at once would take half a second for a million texts.
        """
        end = min(self._moved + _MOVED_AT_ONCE, len(self.start))
        rows = np.arange(self._moved, end)
        rows = rows[(self.start[rows] < self._boundary) & (self.length[rows] > 0)]
        lengths = self.length[rows].astype(np.int64)
        before = np.cumsum(lengths) - lengths
        self._append(
            rows, lengths, self.octets[np.arange(lengths.sum()) + np.repeat(self.start[rows] - before, lengths)]
        )
        self._moved = end
        if end == len(self.start):
            self.octets = self.octets[self._boundary : self._end].copy()
            self.start -= self._boundary
            self._end -= self._boundary
            self._boundary, self._garbage = 0, self._garbage_behind
