"""Which items share a value (an author, a genre, a word of the title), and how these items fare together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.attributes import AttributeValue
from worker.state_store.rows import grown

COUNTS: Final = 3
"""What is counted of an item, a user or a value: impressions, positives, and the sum of grades in `FULL_GRADE`-ths."""
NO_VALUE: Final = -1
"""Fills the values of an item that has fewer than the most."""
Counts = NDArray[np.int64]


class SharedValues:
    """The values of each item, and per value the counts of all items that have it. Items are known by their row.

    A value's counts change by the difference whenever an item's do, so that they cost nothing to read.

    Args:
        most: values of an item.
    """

    def __init__(self, most: int) -> None:
        self.of_items: NDArray[np.int32] = np.zeros((0, most), np.int32)  # (item rows, most), then NO_VALUE
        self.counts: Counts = np.zeros((0, COUNTS), np.int64)  # (values, COUNTS)
        self._names: list[tuple[str, str]] = []  # by value: the attribute's name, and the value as first written
        self._known: dict[tuple[str, str], int] = {}
        self._sums: NDArray[np.float64] = np.zeros((0, 0))  # scratch, see `sums_by_value`; zeros between two calls

    def __len__(self) -> int:
        return len(self._names)

    def values(self) -> list[tuple[str, str, str]]:
        """Of every value the attribute's name, the key by which it is known, and the text."""
        return [(name, key, text) for (name, key), (_, text) in zip(self._known, self._names, strict=True)]

    def restore(self, values: Sequence[tuple[str, str, str]]) -> None:
        """Knows the values that `values` told, and no item with any of them; nothing may be known before."""
        self._names = [(name, text) for name, _, text in values]
        self._known = {(name, key): at for at, (name, key, _) in enumerate(values)}
        self.counts = grown(self.counts, len(values))

    def name_of(self, value: int) -> tuple[str, str]:
        """The attribute's name and the value's text."""
        return self._names[value]

    def grow(self, item_rows: int) -> None:
        """Makes room for items."""
        self.of_items = grown(self.of_items, item_rows, NO_VALUE)

    def set_values(self, item_row: int, values: Sequence[AttributeValue], item_counts: Counts) -> None:
        """Stores what an item's values are.

        Args:
            item_row: the item.
            values: distinct, at most as many as there is room for.
            item_counts: (COUNTS,) the item's present ones.
        """
        rows = np.array([item_row])
        self.move_counts(rows, -item_counts[None])
        row = self.of_items[item_row]
        row[: len(values)] = [self._intern(value) for value in values]
        row[len(values) :] = NO_VALUE
        self.move_counts(rows, item_counts[None])

    def move_counts(self, item_rows: NDArray[np.int64], differences: Counts) -> None:
        """Adds changes of items' counts, (n, COUNTS), to each of their values."""
        values = self.of_items[item_rows]
        item, place = np.nonzero(values != NO_VALUE)
        if len(item):
            np.add.at(self.counts, values[item, place], differences[item])

    def sums_by_value(
        self, values: NDArray[np.int32], rows: NDArray[np.int64], numbers: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Adds up numbers of items by the values that they have.

        Args:
            values: (…) the values asked for; NO_VALUE has a sum of zero.
            rows: (items,) of the items, which may repeat.
            numbers: (items, k) what each adds to each of its values.

        Returns:
            (…, k).
        """
        if self._sums.shape != (len(self.counts) + 1, numbers.shape[1]):
            self._sums = np.zeros((len(self.counts) + 1, numbers.shape[1]))
        theirs = self.of_items[rows]  # (items, most)
        item, place = np.nonzero(theirs != NO_VALUE)
        met = theirs[item, place]
        np.add.at(self._sums, met, numbers[item])
        sums: NDArray[np.float64] = self._sums[values]  # NO_VALUE reads the last row, which stays zero
        self._sums[met] = 0
        return sums

    def _intern(self, value: AttributeValue) -> int:
        known = self._known.setdefault((value.name, value.key), len(self._names))
        if known == len(self._names):
            self._names.append((value.name, value.text))
            self.counts = grown(self.counts, len(self._names))
        return known
