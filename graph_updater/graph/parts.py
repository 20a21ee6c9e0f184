"""Shards' parts of the items' sums and degrees, each as it was last told, whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.node_tables import UNKNOWN_LANDMARK
from runtime.arrays import grow

COUNTS: Final = 5
IMPRESSIONS, POSITIVES, GRADES, LAST_EVENT_MS, IS_MENTIONED = range(COUNTS)
"""Columns of `Parts.counts`. The first three are added up over the shards, of the last two the largest counts."""
LARGEST_SUM: Final = 1e18
"""Sums beyond it come from no graph, and a few of them would add up to infinity."""
_MOST_HALF_LIVES: Final = 60
"""Between two landmarks. Edges further apart weigh nothing beside each other, and float32 could not hold the ratio."""


class Parts(NamedTuple):
    """One shard's parts of some items: what its own edges give. L layers, d dimensions."""

    degree: NDArray[np.float64]  # (items,) sum of the edges' weights
    edges: NDArray[np.int64]  # (items,) how many
    landmark_ms: NDArray[np.int64]  # (items,) what the weights are relative to, with decay
    sums: NDArray[np.float32]  # (items, L, d) S⁽⁰⁾ … S⁽ᴸ⁻¹⁾ over the shard's users
    counts: NDArray[np.int64]  # (items, COUNTS) what else the shard knows of them

    @property
    def there(self) -> NDArray[np.bool_]:
        """Whether anything is left of each: (items,)."""
        counted = (self.counts[:, :LAST_EVENT_MS] != 0).any(axis=1) | (self.counts[:, IS_MENTIONED] > 0)
        return np.asarray((self.edges > 0) | counted)

    def rows(self, chosen: NDArray[np.generic]) -> Parts:
        """Some of them."""
        return Parts(*(column[chosen] for column in self))


class PartStore:
    """The parts of every shard, by shard and node. Takes memory for those that are there only.

    Args:
        shards: how many.
        layers: of every part.
        dim: of every sum.
        half_life_ms: of the weights; 0 without decay.
    """

    def __init__(self, shards: int, layers: int, dim: int, half_life_ms: int) -> None:
        self.shards = shards
        self._half_life_ms = half_life_ms
        self._slot_of = np.zeros(0, np.int32)  # (nodes,) 0 for those that are no items
        self._slots = 1
        self._row_of = [np.zeros(1, np.int32) for _ in range(shards)]  # (slots,) each; 0 for no part
        self._parts = Parts(
            degree=np.zeros(1, np.float64),
            edges=np.zeros(1, np.int64),
            landmark_ms=np.zeros(1, np.int64),
            sums=np.zeros((1, layers, dim), np.float32),
            counts=np.zeros((1, COUNTS), np.int64),
        )
        """Row 0 stays empty."""
        self._free: list[int] = []
        self._used = 1

    def add_items(self, nodes: NDArray[np.int32]) -> None:
        """Makes room for the parts of these nodes."""
        grow(self._slot_of, int(nodes.max(initial=-1)) + 1)
        new = nodes[self._slot_of[nodes] == 0]
        self._slot_of[new] = np.arange(self._slots, self._slots + new.size)
        self._slots += new.size
        for row_of in self._row_of:
            grow(row_of, self._slots)

    def put(self, shard: int, nodes: NDArray[np.int32], parts: Parts) -> None:
        """Replaces a shard's parts of these nodes, each named once."""
        row_of, slots = self._row_of[shard], self._slot_of[nodes]
        there = parts.there
        self._free_rows(row_of, slots[~there])
        new = slots[there & (row_of[slots] == 0)]
        row_of[new] = self._take_rows(new.size)
        rows = row_of[slots[there]]
        for ours, theirs in zip(_columns(self._parts), _columns(parts), strict=True):
            ours[rows] = theirs[there]

    def remove(self, shard: int, nodes: NDArray[np.int32]) -> None:
        """Forgets a shard's parts of these nodes."""
        self._free_rows(self._row_of[shard], self._slot_of[nodes])

    def told(self, shard: int, nodes: NDArray[np.int32], landmark_ms: int) -> Parts:
        """A shard's parts of these nodes, relative to that landmark; zero where it has none."""
        rows = self._row_of[shard][self._slot_of[nodes]]
        found = self._parts.rows(rows)
        if not self._half_life_ms:
            return found
        factor = self._factor(rows, landmark_ms)
        return Parts(
            found.degree * factor,
            found.edges,
            np.full_like(found.landmark_ms, landmark_ms),
            found.sums * np.sqrt(factor).astype(np.float32)[:, None, None],
            found.counts,
        )

    def has(self, shard: int, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Of which of these nodes a shard has a part: (nodes,)."""
        return np.asarray(self._row_of[shard][self._slot_of[nodes]] > 0)

    def as_is(self, shard: int, nodes: NDArray[np.int32]) -> Parts:
        """A shard's parts of these nodes, each relative to its own landmark; zero where it has none."""
        return self._parts.rows(self._row_of[shard][self._slot_of[nodes]])

    def told_as_is(self, shard: int, nodes: NDArray[np.int32]) -> tuple[NDArray[np.bool_], Parts]:
        """Of which of these nodes a shard has a part, (nodes,), and these parts, relative to landmarks of their own."""
        there = self.has(shard, nodes)
        return there, self.as_is(shard, nodes[there])

    def told_numbers(
        self, shard: int, nodes: NDArray[np.int32], landmark_ms: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Degrees, numbers of edges and counts as `told` gives them."""
        rows = self._row_of[shard][self._slot_of[nodes]]
        degree, parts = self._parts.degree[rows], self._parts
        degree = degree * self._factor(rows, landmark_ms) if self._half_life_ms else degree
        return degree, parts.edges[rows], parts.counts[rows]

    def counts_of(self, shards: Iterable[int], nodes: NDArray[np.int32]) -> NDArray[np.int64]:
        """What these shards have counted, together: (nodes, COUNTS)."""
        together = np.zeros((nodes.size, COUNTS), np.int64)
        for shard in shards:
            counts = self._parts.counts[self._row_of[shard][self._slot_of[nodes]]]
            together[:, :LAST_EVENT_MS] += counts[:, :LAST_EVENT_MS]
            np.maximum(together[:, LAST_EVENT_MS:], counts[:, LAST_EVENT_MS:], out=together[:, LAST_EVENT_MS:])
        return together

    def _factor(self, rows: NDArray[np.int32], landmark_ms: int) -> NDArray[np.float64]:
        """By which the weights grow if they are relative to that landmark: (rows,)."""
        half_lives = (self._parts.landmark_ms[rows] - landmark_ms) / self._half_life_ms
        factor = np.exp2(np.clip(half_lives, -_MOST_HALF_LIVES, _MOST_HALF_LIVES))
        factor[self._parts.edges[rows] == 0] = 1.0
        return np.asarray(factor)

    def latest_landmark_ms(self) -> int:
        """The latest that a part is relative to."""
        rows = self._parts.landmark_ms[: self._used][self._parts.edges[: self._used] > 0]
        return int(rows.max(initial=UNKNOWN_LANDMARK))

    def nbytes(self) -> int:
        """Bytes held."""
        return sum(column.nbytes for column in (*_columns(self._parts), *self._row_of, self._slot_of))

    def _free_rows(self, row_of: NDArray[np.int32], slots: NDArray[np.int32]) -> None:
        freed = row_of[slots][row_of[slots] > 0]
        self._free += freed.tolist()
        self._parts.edges[freed] = 0
        self._parts.counts[freed] = 0
        row_of[slots] = 0

    def _take_rows(self, count: int) -> NDArray[np.int64]:
        reused = [self._free.pop() for _ in range(min(count, len(self._free)))]
        fresh = np.arange(self._used, self._used + count - len(reused))
        self._used += fresh.size
        for column in _columns(self._parts):
            grow(column, self._used)
        return np.concatenate([np.array(reused, np.int64), fresh])


def _columns(parts: Parts) -> tuple[NDArray[Any], ...]:
    return tuple(parts)
