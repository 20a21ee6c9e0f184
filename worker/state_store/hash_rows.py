"""Finds the rows of many ids at once by their 64-bit hashes, in arrays alone: open addressing, vectorised over the ids.

A `dict` of ids costs over 150 bytes each and a Python step per lookup; a user's state names fifty items.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from runtime.arrays import grow
from worker.state_store.rows import UNKNOWN_ROW

Hashes = NDArray[np.uint64]
_EMPTY: Final = -1
_GONE: Final = -2
"""Marks a slot whose id has been removed: a search goes on behind it."""
_FIRST_SLOTS: Final = 64


class HashRows:
    """Rows by hash. Two ids of one hash are taken for the same: see `schemas.packed_states.id_hash`."""

    def __init__(self) -> None:
        self._slots = np.full(_FIRST_SLOTS, _EMPTY, np.int32)  # a power of two, at most half of them used
        self._hashes: Hashes = np.zeros(0, np.uint64)  # by row
        self._used = 0  # slots that are not empty, those of removed ids among them

    def find(self, hashes: Hashes) -> NDArray[np.int64]:
        """The rows, (n,); UNKNOWN_ROW where a hash has none."""
        at = (hashes & np.uint64(len(self._slots) - 1)).view(np.int64)
        rows = self._slots.take(at)
        hit = self._hits(rows, hashes)
        found = np.where(hit, rows, UNKNOWN_ROW).astype(np.int64)
        more = np.flatnonzero(~hit & (rows != _EMPTY))
        if len(more):
            found[more], _ = self._search(hashes[more])
        return found

    def find_one(self, number: int) -> int:
        """The row of one hash, or UNKNOWN_ROW."""
        slots, mask = self._slots, len(self._slots) - 1
        at, step = number & mask, 0
        while (row := int(slots[at])) != _EMPTY:
            if row >= 0 and int(self._hashes[row]) == number:
                return row
            step += 1
            at = (at + step) & mask
        return UNKNOWN_ROW

    def add(self, hashes: Hashes, rows: NDArray[np.int64]) -> None:
        """Adds distinct hashes that are not there, (n,) both."""
        if not len(rows):
            return
        grow(self._hashes, int(rows.max()) + 1)
        self._hashes[rows] = hashes
        self._used += len(rows)
        if 2 * self._used > len(self._slots):
            self._lay_out(rows)
        else:
            self._place(hashes, rows)

    def add_one(self, number: int, row: int) -> None:
        """Adds one hash that is not there."""
        if 2 * (self._used + 1) > len(self._slots):
            self.add(np.array([number], np.uint64), np.array([row], np.int64))
            return
        grow(self._hashes, row + 1)
        self._hashes[row] = number
        self._used += 1
        slots, mask = self._slots, len(self._slots) - 1
        at, step = number & mask, 0
        while slots[at] != _EMPTY:
            step += 1
            at = (at + step) & mask
        slots[at] = row

    def remove(self, hashes: Hashes) -> None:
        """Removes hashes that are there, (n,)."""
        _, slots = self._search(hashes)
        self._slots[slots] = _GONE

    def _hits(self, rows: NDArray[np.int32], hashes: Hashes) -> NDArray[np.bool_]:
        """Which rows, as they stand in slots, are those of the hashes."""
        if not len(self._hashes):
            return np.zeros(len(rows), np.bool_)
        same: NDArray[np.bool_] = self._hashes.take(rows, mode="clip") == hashes
        return same & (rows >= 0)

    def _search(self, hashes: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows, and the slots in which they stand. Steps grow by one, which reaches every slot of a power of two."""
        mask = len(self._slots) - 1
        at = (hashes & np.uint64(mask)).view(np.int64)
        found = np.full(len(hashes), UNKNOWN_ROW, np.int64)
        slots = at.copy()
        asking = np.arange(len(hashes))
        step = 0
        while len(asking):
            rows = self._slots[at]
            hit = self._hits(rows, hashes[asking])
            found[asking[hit]] = rows[hit]
            slots[asking[hit]] = at[hit]
            on = ~hit & (rows != _EMPTY)
            asking, step = asking[on], step + 1
            at = (at[on] + step) & mask
        return found, slots

    def _lay_out(self, added: NDArray[np.int64]) -> None:
        """Places every hash anew, in twice as many slots as are needed at least."""
        kept = self._slots[self._slots >= 0].astype(np.int64)
        rows = np.concatenate([kept, added])
        self._used = len(rows)
        self._slots = np.full(max(_FIRST_SLOTS, 1 << int(3 * self._used - 1).bit_length()), _EMPTY, np.int32)
        self._place(self._hashes[rows], rows)

    def _place(self, hashes: Hashes, rows: NDArray[np.int64]) -> None:
        mask = len(self._slots) - 1
        at = (hashes & np.uint64(mask)).astype(np.int64)
        step = 0
        while len(rows):
            free = self._slots[at] == _EMPTY
            self._slots[at[free]] = rows[free]  # of several that want one slot the last has it
            waiting = self._slots[at] != rows
            step += 1
            at, rows = (at[waiting] + step) & mask, rows[waiting]
