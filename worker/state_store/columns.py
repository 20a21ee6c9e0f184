"""What the columns of items and of users have in common: a row for each, and no Python object for a row but an item's
id and title.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.arrays import grow
from worker.state_store.shared_values import COUNTS

Rows = NDArray[np.int64]
Matrix = NDArray[np.float32]


def normalised(vectors: NDArray[np.floating[Any]]) -> Matrix:
    """Rows of (n, dim) scaled to length 1; a row of zeros stays zeros."""
    wide = vectors.astype(np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    lengths[lengths == 0] = 1
    unit: Matrix = wide / lengths[:, None]
    return unit


class ChangedRows:
    """Rows that have changed, each once; in memory that does not grow with the number of changes."""

    def __init__(self) -> None:
        self._is_marked: NDArray[np.bool_] = np.zeros(0, np.bool_)  # (rows,)
        self._marked: list[Rows] = []

    def __bool__(self) -> bool:
        return bool(self._marked)

    def mark(self, rows: Rows) -> None:
        """Notes distinct rows."""
        new = rows[~self._is_marked[rows]]
        if len(new):
            self._is_marked[new] = True
            self._marked.append(new)

    def rows(self) -> Rows:
        """Those noted since the last `clear`."""
        return np.concatenate(self._marked)

    def clear(self) -> None:
        """Forgets them."""
        self._is_marked[self.rows()] = False
        self._marked.clear()

    def grow(self, rows: int) -> None:
        """Makes room for rows."""
        grow(self._is_marked, rows)


class EmbeddedColumns(ABC):
    """Embedding (or none) and counts by row. Embeddings are kept in half precision, which is how they are sent."""

    def __init__(self, dim: int) -> None:
        self.embeddings: NDArray[np.float16] = np.zeros((0, dim), np.float16)  # (rows, dim)
        self.embedded: NDArray[np.bool_] = np.zeros(0, np.bool_)  # (rows,)
        self.foreign: NDArray[np.bool_] = np.zeros(0, np.bool_)  # (rows,) the latest embedding is of another space
        self.foreign_count = 0
        """Rows of `foreign`; a plain number, since others than the owner read it while columns move in memory."""
        self.counts: NDArray[np.int64] = np.zeros((0, COUNTS), np.int64)  # (rows, COUNTS)
        self.changed = ChangedRows()
        """Since the search index was last brought up to date."""

    @abstractmethod
    def is_searchable(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of the rows, if they have an embedding, can serve as evidence."""

    def are_live(self, found: Rows) -> NDArray[np.bool_]:
        """Which of the rows that a search has found are still to be found: the index learns of changes later. Of any
        shape; NO_ID is none.
        """
        live: NDArray[np.bool_] = found >= 0
        rows = found[live]
        live[live] = self.embedded[rows] & self.is_searchable(rows)
        return live

    def vectors(self, rows: Rows) -> Matrix:
        """Embeddings of rows, (n, dim); zeros where there is none."""
        return self.embeddings[rows].astype(np.float32)

    def set_embeddings(self, rows: Rows, vectors: Matrix) -> None:
        """Sets embeddings of distinct rows, (n, dim); one without direction (all zeros) counts as none."""
        self.embeddings[rows] = vectors
        self.embedded[rows] = self.embeddings[rows].any(axis=1)
        self.foreign_count -= int(self.foreign[rows].sum())
        self.foreign[rows] = False

    def mark_foreign(self, rows: Rows) -> None:
        """The latest embedding of distinct rows is of another space; the one before stays."""
        self.foreign_count += int((~self.foreign[rows]).sum())
        self.foreign[rows] = True

    def awaited_and_known(self) -> tuple[int, int]:
        """Rows that have an embedding of another space alone, and rows that have any."""
        return int((self.foreign & ~self.embedded).sum()), int((self.foreign | self.embedded).sum())

    def grow(self, rows: int) -> None:
        """Makes room for rows in every column."""
        if rows <= len(self.embedded):
            return
        grow(self.embeddings, rows)
        grow(self.embedded, rows)
        grow(self.foreign, rows)
        grow(self.counts, rows)
        self.changed.grow(len(self.embedded))
