"""Items by row: embedding, counts, title, and what they share with other items."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.attributes import MOST_VALUES, MOST_WORDS, AttributeValue
from models.evidence import ItemFacts
from runtime.arrays import grow
from schemas.packed_states import id_hash
from worker.state_store.columns import EmbeddedColumns, Rows
from worker.state_store.hash_rows import Hashes, HashRows
from worker.state_store.rows import UNKNOWN_ROW, RowIds
from worker.state_store.shared_values import COUNTS, SharedValues

NO_TITLE: Final[Sequence[int]] = array("i")
_TEXT: Final = 1
_STATE: Final = 2


class ItemColumns(EmbeddedColumns):
    """Items. Users' histories refer to rows, so a row is used again only when no history does, and neither the
    catalogue nor the updater tells of its item.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.ids = RowIds()
        self.titles: list[Sequence[int]] = []
        self.attributes = SharedValues(MOST_VALUES)
        self.title_words = SharedValues(MOST_WORDS)
        self.totals: NDArray[np.int64] = np.zeros(COUNTS, np.int64)
        """(COUNTS,) of all items together."""
        self._by_hash = HashRows()
        self.told_by: NDArray[np.uint8] = np.zeros(0, np.uint8)  # (rows,) _TEXT, _STATE
        self._mentions: NDArray[np.int32] = np.zeros(0, np.int32)  # (rows,) entries of histories

    def intern(self, name: str) -> int:
        """The row of an id, with room for it in every column."""
        known = len(self.ids)
        row = self.ids.intern(name)
        if len(self.ids) > known:
            self.grow(row + 1)
            self._by_hash.add_one(id_hash(name), row)
        return row

    def intern_many(self, names: Sequence[str]) -> Rows:
        """The rows of distinct ids, as `intern` gives them."""
        rows = np.fromiter(map(self.ids.row, names), np.int64, len(names))
        new = np.flatnonzero(rows == UNKNOWN_ROW)
        if len(new):
            of_new = [names[at] for at in new.tolist()]
            rows[new] = [self.ids.intern(name) for name in of_new]
            self.grow(self.ids.high_water)
            self._by_hash.add(np.array([id_hash(name) for name in of_new], np.uint64), rows[new])
        return rows

    def find(self, hashes: Hashes) -> Rows:
        """Rows by `id_hash`, (n,); UNKNOWN_ROW where there is none."""
        return self._by_hash.find(hashes)

    def set_text(self, row: int, title: Sequence[int]) -> None:
        """The catalogue tells of the item; `title`: tokens."""
        self.titles[row] = title
        self.told_by[row] |= _TEXT

    def set_words(self, row: int, attributes: Sequence[AttributeValue], words: Sequence[AttributeValue]) -> None:
        """The values of the item's attributes and the words of its title."""
        self.attributes.set_values(row, attributes, self.counts[row])
        self.title_words.set_values(row, words, self.counts[row])

    def set_counts(self, rows: Rows, counts: NDArray[np.int64]) -> None:
        """Counts of distinct rows (n, COUNTS), here and in what their values and all items add up to."""
        difference = counts - self.counts[rows]
        self.attributes.move_counts(rows, difference)
        self.title_words.move_counts(rows, difference)
        self.totals += difference.sum(axis=0)
        self.counts[rows] = counts
        self.told_by[rows] |= _STATE

    def forget_text(self, row: int) -> None:
        """The catalogue no longer tells of the item."""
        self.titles[row] = NO_TITLE
        self.set_words(row, (), ())
        self.told_by[row] &= ~np.uint8(_TEXT)
        self._free(np.array([row]))

    def forget_state(self, row: int) -> None:
        """The updater no longer tells of the item."""
        rows = np.array([row])
        self.set_embeddings(rows, np.zeros((1, self.embeddings.shape[1]), np.float32))
        self.set_counts(rows, np.zeros((1, COUNTS), np.int64))
        self.told_by[row] &= ~np.uint8(_STATE)
        self._free(rows)

    def move_mentions(self, before: Rows, now: Rows) -> None:
        """Histories that mentioned the items of `before` mention those of `now`; both may repeat."""
        one = np.int32(1)  # of the column's own type: numpy takes fifty times as long with another
        np.add.at(self._mentions, now, one)
        np.subtract.at(self._mentions, before, one)
        gone = before[(self._mentions[before] == 0) & (self.told_by[before] == 0)]
        if len(gone):
            self._free(np.unique(gone))

    def free_unused(self) -> None:
        """Frees every row of which nobody tells and that no history mentions."""
        self._free(np.array([row for row in range(self.ids.high_water) if self.ids.id_of(row)], np.int64))

    def facts(self, rows: Rows) -> dict[int, ItemFacts]:
        """Facts of the items in distinct `rows`, by row; copies, so that later changes do not reach them."""
        embeddings = self.vectors(rows)
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

    def grow(self, rows: int) -> None:
        """Makes room for rows in every column."""
        super().grow(rows)
        self.titles.extend([NO_TITLE] * (len(self.embedded) - len(self.titles)))
        self.attributes.grow(len(self.embedded))
        self.title_words.grow(len(self.embedded))
        grow(self.told_by, rows)
        grow(self._mentions, rows)

    def _free(self, rows: Rows) -> None:
        """Frees those of the rows of which nobody tells and that no history mentions."""
        unused = rows[(self._mentions[rows] == 0) & (self.told_by[rows] == 0)]
        if len(unused):
            names = [self.ids.id_of(row) for row in unused.tolist()]
            self._by_hash.remove(np.array([id_hash(name) for name in names], np.uint64))
            for name in names:
                self.ids.forget(name)
