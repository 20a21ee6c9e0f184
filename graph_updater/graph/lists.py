"""Many short growing lists in shared arrays: the memory layout of the adjacency and the histories.

Each list occupies one block of cells. Blocks have sizes 4, 6, 8, 12, 16, 24, …, so a list wastes at most a third of its
block. A list that outgrows its block moves to a larger one; the old block goes to the free list of its size. The cells
are columns (NumPy arrays) that belong to the user of the lists; one of them also holds the links of the free lists.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from runtime.arrays import grow

BLOCK_SIZES: Final = np.array([size << k for k in range(1, 29) for size in (2, 3)], dtype=np.int64)
NO_BLOCK: Final = -1


class Lists(NamedTuple):
    """Where the lists are; list i occupies cells `start[i]` to `start[i] + length[i]`."""

    start: NDArray[np.int32]  # (lists,)
    length: NDArray[np.int32]  # (lists,)
    size_class: NDArray[np.int8]  # (lists,) index into BLOCK_SIZES, NO_BLOCK for none
    free: NDArray[np.int32]  # (size classes,) first free block of each size, NO_BLOCK for none
    tail: NDArray[np.int64]  # (1,) the first cell never used


def empty_lists() -> Lists:
    """No lists; `add_lists` adds some."""
    return Lists(
        start=np.zeros(0, np.int32),
        length=np.zeros(0, np.int32),
        size_class=np.zeros(0, np.int8),
        free=np.full(BLOCK_SIZES.size, NO_BLOCK, np.int32),
        tail=np.zeros(1, np.int64),
    )


def add_lists(lists: Lists, needed: int) -> None:
    """Grows to `needed` lists; new ones are empty."""
    before = lists.start.shape[0]
    for column in (lists.start, lists.length, lists.size_class):
        grow(column, needed)
    lists.size_class[before:] = NO_BLOCK


def lay_out(lists: Lists, lengths: NDArray[np.int64]) -> int:
    """Gives empty lists blocks for their lengths, one after the other. Returns the number of cells needed."""
    count = lengths.shape[0]
    lists.length[:count] = lengths
    size_class = np.searchsorted(BLOCK_SIZES, lengths)
    ends = np.cumsum(np.where(lengths > 0, BLOCK_SIZES[size_class], 0))
    lists.size_class[:count] = np.where(lengths > 0, size_class, NO_BLOCK)
    lists.start[1:count] = ends[:-1]
    lists.tail[0] = ends[-1] if count else 0
    return int(lists.tail[0])


def cells_of(lists: Lists, nodes: NDArray[np.int32]) -> NDArray[np.int64]:
    """The cells of these lists' entries, list after list."""
    lengths = lists.length[nodes].astype(np.int64)
    before = np.cumsum(lengths) - lengths
    cells: NDArray[np.int64] = np.arange(lengths.sum()) + np.repeat(lists.start[nodes] - before, lengths)
    return cells


@njit(cache=True, nogil=True)
def take_block(lists: Lists, link: NDArray[np.int32], size_class: int) -> int:
    """First cell of a free block of that size, or NO_BLOCK if the columns must grow first."""
    block = lists.free[size_class]
    if block != NO_BLOCK:
        lists.free[size_class] = link[block]
        return int(block)
    block = lists.tail[0]
    if block + BLOCK_SIZES[size_class] > link.shape[0]:
        return NO_BLOCK
    lists.tail[0] = block + BLOCK_SIZES[size_class]
    return int(block)


@njit(cache=True, nogil=True)
def free_block(lists: Lists, link: NDArray[np.int32], block: int, size_class: int) -> None:
    """Returns a block to the free list of its size."""
    link[block] = lists.free[size_class]
    lists.free[size_class] = block


@njit(cache=True, nogil=True)
def is_full(lists: Lists, i: int) -> bool:
    """Whether list i has no cell left for another entry."""
    return bool(lists.size_class[i] == NO_BLOCK or lists.length[i] == BLOCK_SIZES[lists.size_class[i]])
