"""The node tables of `graph_updater.graph.propagation`, where the mathematics is, as its kernels see them.

Where several shards share the items (`graph_updater.graph.sharing`), some tables are wider. There are none of their own
for this: with six more arrays in the tuple the compiler gives up optimisations, and one shard takes three times as
long.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

ROOT, TOLERANCE, LEAST_TOLERANCE, MOVED, NORM, PEAK, RHO = 0, 1, 2, 3, 4, 5, 6
"""Columns of `head`: 1/√d; ‖z‖n^κ/√d; the least tolerance among the neighbours; μ; ‖z‖; the largest degree or weight
since the sums were last recomputed; then ρ and the limits, one column per layer each. Where there are several shards,
then the degree and the number of edges that the parts of the others add up to."""
IS_DIRTY, IS_ITEM, IS_OWED = 1, 2, 4
"""Bits of `dirty`: whether the node is in `moved`; only where there are several shards, whether it is an item, and
whether it is in the third column of `queue`."""
OWED_QUEUE: Final = 2
"""The column of `queue` with the items whose part may have moved since it was last looked at."""

UNKNOWN_LANDMARK: Final = -1
"""`BipartiteGraph.landmark_ms` before the first edge, or without decay."""


class Tables(NamedTuple):
    """The node tables as the kernels see them; L layers, d dimensions. In brackets, if there are several shards."""

    base: NDArray[np.float32]  # (nodes, d) x⁽⁰⁾
    sums: NDArray[np.float32]  # (nodes, L, d) S⁽⁰⁾ … S⁽ᴸ⁻¹⁾ over all shards
    pushed: NDArray[np.float32]  # (nodes, L [2 L], d) ŷ⁽⁰⁾ … ŷ⁽ᴸ⁻¹⁾ [then the sum of the other shards' parts of S]
    head: NDArray[np.float32]  # (nodes, 6 + 2 L [+ 2]) see the column numbers above
    queued: NDArray[np.uint8]  # (nodes,) bit l: queued for layer l
    queue: NDArray[np.int32]  # (nodes, 2 [3]) the queues of this and of the next layer [and the items owed]
    dirty: NDArray[np.uint8]  # (nodes,) whether in `moved` [and the other bits above]
    moved: NDArray[np.int32]  # (nodes,) nodes that may have turned by more than `Weights.turn`
    moved_count: NDArray[np.int64]  # (2,) entries of `moved` in use [and of the items owed]


class Weights(NamedTuple):
    """Constants of the model and of its approximation."""

    alphas: NDArray[np.float32]  # (L + 1,)
    epsilon: np.float32
    turn: np.float32  # sine of the angle by which z must turn to be dirty


@njit(cache=True, nogil=True)
def is_one_of_several(tables: Tables) -> bool:
    """Whether the items are shared with other shards."""
    return bool(tables.pushed.shape[1] > tables.sums.shape[1])


def empty_tables(layers: int, dim: int, *, one_of_several: bool) -> Tables:
    """Tables of no nodes."""
    width = RHO + 2 * layers
    return Tables(
        base=np.zeros((0, dim), np.float32),
        sums=np.zeros((0, layers, dim), np.float32),
        pushed=np.zeros((0, 2 * layers if one_of_several else layers, dim), np.float32),
        head=np.zeros((0, width + 2 if one_of_several else width), np.float32),
        queued=np.zeros(0, np.uint8),
        queue=np.zeros((0, 3 if one_of_several else 2), np.int32),
        dirty=np.zeros(0, np.uint8),
        moved=np.zeros(0, np.int32),
        moved_count=np.zeros(2, np.int64),
    )
