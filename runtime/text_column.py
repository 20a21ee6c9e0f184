"""Short texts by row in one array of bytes: no Python object for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from runtime.arrays import grow

_LEAST_GARBAGE: Final = 1 << 20
"""Bytes of texts that have been replaced, below which the array is not worth tidying."""


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
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        for column in (self.start, self.length):
            grow(column, int(rows.max()) + 1)
        self._garbage += int(self.length[rows].sum(dtype=np.int64))
        total = int(lengths.sum())
        grow(self.octets, self._end + total)
        self.octets[self._end : self._end + total] = np.frombuffer(b"".join(texts), np.uint8)
        self.start[rows] = self._end + np.cumsum(lengths) - lengths
        self.length[rows] = lengths
        self._end += total
        if self._garbage > max(_LEAST_GARBAGE, self._end // 2):
            self._tidy()

    def _tidy(self) -> None:
        """Leaves out what has been replaced."""
        starts = np.cumsum(self.length, dtype=np.int64) - self.length
        total = int(self.length.sum(dtype=np.int64))
        self.octets = self.octets[np.arange(total) + np.repeat(self.start - starts, self.length)]
        self.start, self._end, self._garbage = starts, total, 0
