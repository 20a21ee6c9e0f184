"""The columns of a worker's tables: a row for each item and each user, and no Python object for a row but its id and a
title's tokens.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.attributes import MOST_VALUES, MOST_WORDS, AttributeValue
from models.evidence import ItemFacts, Vector
from worker.state_store.rows import UNKNOWN_ROW, RowIds, grown
from worker.state_store.shared_values import COUNTS, SharedValues

Rows = NDArray[np.int64]
Matrix = NDArray[np.float32]

NO_PAST: Final = -1
"""Fills a history that is shorter than the table's limit."""
NO_TITLE: Final[Sequence[int]] = array("i")


def normalised(vectors: Matrix) -> Matrix:
    """Rows of (n, dim) scaled to length 1; a row of zeros stays zeros."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    lengths[lengths == 0] = 1
    unit: Matrix = vectors / lengths[:, None]
    return unit


class EmbeddedColumns:
    """What items and users have in common: id, embedding (or none), and counts."""

    def __init__(self, dim: int) -> None:
        self.ids = RowIds()
        self.embeddings: Matrix = np.zeros((0, dim), np.float32)  # (rows, dim)
        self.embedded: NDArray[np.bool_] = np.zeros(0, np.bool_)  # (rows,)
        self.foreign: NDArray[np.bool_] = np.zeros(0, np.bool_)  # (rows,) the latest embedding is of another space
        self.counts: NDArray[np.int64] = np.zeros((0, COUNTS), np.int64)  # (rows, COUNTS)

    def intern(self, name: str) -> int:
        """The row of an id, with room for it in every column."""
        row = self.ids.intern(name)
        if row >= len(self.embedded):
            self._grow(row + 1)
        return row

    def set_embedding(self, row: int, embedding: Vector | None) -> None:
        """An embedding without direction (all zeros) counts as none."""
        there = embedding is not None and bool(embedding.any())
        self.embeddings[row] = embedding if there else 0
        self.embedded[row] = there
        self.foreign[row] = False

    def awaited_and_known(self) -> tuple[int, int]:
        """Rows that have an embedding of another space alone, and rows that have any."""
        return int((self.foreign & ~self.embedded).sum()), int((self.foreign | self.embedded).sum())

    def _grow(self, rows: int) -> None:
        self.embeddings = grown(self.embeddings, rows)
        self.embedded = grown(self.embedded, rows)
        self.foreign = grown(self.foreign, rows)
        self.counts = grown(self.counts, rows)


class ItemColumns(EmbeddedColumns):
    """Items. Users' histories refer to rows, so rows are never used again for another item."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.titles: list[Sequence[int]] = []
        self.attributes = SharedValues(MOST_VALUES)
        self.title_words = SharedValues(MOST_WORDS)
        self.totals: NDArray[np.int64] = np.zeros(COUNTS, np.int64)
        """(COUNTS,) of all items together."""

    def set_words(self, row: int, attributes: Sequence[AttributeValue], words: Sequence[AttributeValue]) -> None:
        """The values of the item's attributes and the words of its title."""
        self.attributes.set_values(row, attributes, self.counts[row])
        self.title_words.set_values(row, words, self.counts[row])

    def set_counts(self, row: int, impressions: int, positives: int, grades: int) -> None:
        """The item's counts, here and in what its values and all items add up to."""
        now = np.array((impressions, positives, grades), np.int64)
        difference = now - self.counts[row]
        self.attributes.move_counts(row, difference)
        self.title_words.move_counts(row, difference)
        self.totals += difference
        self.counts[row] = now

    def facts(self, rows: Rows) -> dict[int, ItemFacts]:
        """Facts of the items in distinct `rows`, by row; copies, so that later changes do not reach them."""
        embeddings = self.embeddings[rows]
        embedded = self.embedded[rows].tolist()
        counts = self.counts[rows, :2].tolist()
        return {
            row: ItemFacts(self.ids.id_of(row), self.titles[row], embeddings[at] if embedded[at] else None, *counts[at])
            for at, row in enumerate(rows.tolist())
        }

    def is_searchable(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether the item has been shown."""
        met: NDArray[np.bool_] = self.counts[rows, 0] > 0
        return met

    def _grow(self, rows: int) -> None:
        super()._grow(rows)
        self.titles.extend([NO_TITLE] * (len(self.embedded) - len(self.titles)))
        self.attributes.grow(len(self.embedded))
        self.title_words.grow(len(self.embedded))


class UserColumns(EmbeddedColumns):
    """Users. A history entry is 2 × the item's row + 1 if positive, oldest first, then NO_PAST; its grade is up to
    `FULL_GRADE`.
    """

    def __init__(self, dim: int, history_length: int) -> None:
        super().__init__(dim)
        self.histories: NDArray[np.int32] = np.zeros((0, history_length), np.int32)  # (rows, history)
        self.history_grades: NDArray[np.uint8] = np.zeros((0, history_length), np.uint8)  # (rows, history)
        self.history_lengths: NDArray[np.int32] = np.zeros(0, np.int32)  # (rows,)
        self.versions: NDArray[np.int64] = np.zeros(0, np.int64)  # (rows,) of the embedding, 0 for none
        self.event_times_ms: NDArray[np.int64] = np.zeros(0, np.int64)  # (rows,) of the newest interaction in the state

    def is_searchable(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether the user has a history."""
        remembered: NDArray[np.bool_] = self.history_lengths[rows] > 0
        return remembered

    def embedding_stamp(self, user_id: str) -> tuple[int, int] | None:
        """Version of the user's embedding and event time of the newest interaction in it; None without embedding."""
        row = self.ids.row(user_id)
        if row == UNKNOWN_ROW or not self.embedded[row]:
            return None
        return int(self.versions[row]), int(self.event_times_ms[row])

    def newest_event_ms(self, user_id: str) -> int:
        """Event time of the newest interaction in the user's state; -1 for an unknown user."""
        row = self.ids.row(user_id)
        return -1 if row == UNKNOWN_ROW else int(self.event_times_ms[row])

    def _grow(self, rows: int) -> None:
        super()._grow(rows)
        self.histories = grown(self.histories, rows, NO_PAST)
        self.history_grades = grown(self.history_grades, rows)
        self.history_lengths = grown(self.history_lengths, rows)
        self.versions = grown(self.versions, rows)
        self.event_times_ms = grown(self.event_times_ms, rows)
