"""Many short lists that grow, in one index space: the memory layout under the adjacency and the histories.

A list lies in one block of cells. Blocks come in sizes 4, 6, 8, 12, 16, 24, … (each at most half as large again as
the last), so a list wastes at most a third of its block; a block that was outgrown is linked into the free list of its
size and used again. The cells themselves are columns (NumPy arrays) that the owner of the lists declares; the link of a
free block is kept in its first cell of one of them.

Arrays grow one at a time and by an eighth. `ndarray.resize` reallocates in place; on Linux the allocator moves large
arrays by remapping their pages, so that growing never holds two copies, elsewhere at most one array's.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

BLOCK_SIZES: Final = np.array([size << k for k in range(1, 29) for size in (2, 3)], dtype=np.int64)
NO_BLOCK: Final = -1
_LEAST_GROWTH: Final = 256


class Lists(NamedTuple):
    """The book-keeping of all lists; list i occupies cells `start[i]` to `start[i] + length[i]`."""

    start: NDArray[np.int32]  # (lists,)
    length: NDArray[np.int32]  # (lists,)
    size_class: NDArray[np.int8]  # (lists,) index into BLOCK_SIZES, NO_BLOCK for none
    free: NDArray[np.int32]  # (size classes,) first free block of each size, NO_BLOCK for none
    tail: NDArray[np.int64]  # (1,) the first cell never used


def empty_lists() -> Lists:
    """No list yet; `grow` makes room."""
    return Lists(
        start=np.zeros(0, np.int32),
        length=np.zeros(0, np.int32),
        size_class=np.zeros(0, np.int8),
        free=np.full(BLOCK_SIZES.size, NO_BLOCK, np.int32),
        tail=np.zeros(1, np.int64),
    )


def add_lists(lists: Lists, needed: int) -> None:
    """Makes room for `needed` lists in all; new ones are empty."""
    before = lists.start.shape[0]
    for column in (lists.start, lists.length, lists.size_class):
        grow(column, needed)
    lists.size_class[before:] = NO_BLOCK


def lay_out(lists: Lists, lengths: NDArray[np.int64]) -> int:
    """Gives empty lists blocks for so many entries each, one after the other; the number of cells this takes."""
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


def grow(array: NDArray[np.generic], needed: int) -> None:
    """Makes the array's first axis at least `needed` long, in place, new entries zero.

    No view of the array may be alive: its memory may move.
    """
    rows = array.shape[0]
    if needed > rows:
        room = max(needed, rows + rows // 8 + _LEAST_GROWTH)
        array.resize((room, *array.shape[1:]), refcheck=False)


@njit(cache=True, nogil=True)
def take_block(lists: Lists, link: NDArray[np.int32], size_class: int) -> int:
    """First cell of an unused block of that size, or NO_BLOCK when the columns must grow first."""
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
    """Gives a block back for others to use."""
    link[block] = lists.free[size_class]
    lists.free[size_class] = block


@njit(cache=True, nogil=True)
def is_full(lists: Lists, i: int) -> bool:
    """Whether list i has no cell left for another entry."""
    return bool(lists.size_class[i] == NO_BLOCK or lists.length[i] == BLOCK_SIZES[lists.size_class[i]])
