"""The interactions as a weighted bipartite graph: growable adjacency with edge times, a degree cap, expiry and decay.

Decay. An edge of age a counts w·2^(-a/H). LightGCN's propagation D^-½ A D^-½ does not change when all weights are
multiplied by the same factor. So old weights stay and new ones grow (forward decay; Cormode et al., ICDE 2009): an edge
with event time t is stored as w·2^((t - landmark)/H), which is its decayed weight times 2^((now - landmark)/H). The
passing of time costs nothing. Before this factor exceeds the range of float32, the landmark is moved and all weights
are divided by a power of four (`BipartiteGraph.rescale`). This is exact in binary floating point, and so is the square
root that other quantities are rescaled by. Edges older than `MAX_HALF_LIVES` are dropped: they weigh nothing any more.

Expiry. Event time is divided into slices of 1/256 of the window; an edge expires when its slice has left the window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.adjacency import Adjacency, EdgeChanges, EdgeOps, apply_ops
from graph_updater.graph.config import GraphConfig
from graph_updater.graph.lists import add_lists, cells_of, empty_lists, lay_out
from runtime.arrays import grow

MAX_HALF_LIVES: Final = 48
_RESCALE_HALF_LIVES: Final = 32
_SLICES_PER_WINDOW: Final = 256
_ABSENT: Final = -1


class Edges(NamedTuple):
    """Edges as columns, each seen from one of its ends."""

    node: NDArray[np.int32]  # (edges,)
    neighbour: NDArray[np.int32]  # (edges,)
    weight: NDArray[np.float32]  # (edges,) stored weight
    time: NDArray[np.int64]  # (edges,) event time in ms


class BipartiteGraph:
    """Edges between nodes numbered from 0; users and items share the numbers.

    Args:
        config: cap, window and half-life.
    """

    def __init__(self, config: GraphConfig) -> None:
        self._cap = config.degree_cap
        self._half_life_ms = config.half_life_ms
        self.window_ms = effective_window(config)
        self._slice_ms = max(1, self.window_ms // _SLICES_PER_WINDOW)
        self._pairs_of_slice: dict[int, list[NDArray[np.int64]]] = {}
        self.oldest_slice = _ABSENT
        self.landmark_ms = _ABSENT
        self.nodes = 0
        self.adjacency = Adjacency(
            lists=empty_lists(),
            degree=np.zeros(0, np.float64),
            neighbour=np.zeros(0, np.int32),
            weight=np.zeros(0, np.float32),
            twin=np.zeros(0, np.int32),
            time=np.zeros(0, np.int64),
        )

    def add_nodes(self, needed: int) -> None:
        """Grows to `needed` nodes; new ones have no edges."""
        self.nodes = needed
        add_lists(self.adjacency.lists, self.nodes)
        grow(self.adjacency.degree, self.nodes)

    def apply(self, ops: EdgeOps) -> EdgeChanges:
        """Applies the operations in order, without insertions that are too old. Returns the changes, in stored weights.

        With decay, call `rescale_factor` first; all edges must lie within some dozens of half-lives of its time.
        """
        ops = self._admitted(ops)
        room = 3 * ops.user.shape[0]
        changes = EdgeChanges(np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.float32))
        done, changed = 0, 0
        while True:
            done, changed = apply_ops(self.adjacency, ops, changes, done, changed, self._cap)
            if done == ops.user.shape[0]:
                break
            self._grow_cells()
        if self.window_ms:
            self._remember_slices(ops)
        return EdgeChanges(changes.user[:changed], changes.item[:changed], changes.weight[:changed])

    def expired(self, now_ms: int) -> Iterator[EdgeOps]:
        """The removals due at `now_ms`, slice by slice; apply each before taking the next."""
        if not self.window_ms:
            return
        oldest = (now_ms - self.window_ms) // self._slice_ms + 1
        if oldest == self.oldest_slice:
            return
        self.oldest_slice = oldest
        for past in sorted(number for number in self._pairs_of_slice if number < self.oldest_slice):
            pairs = np.unique(np.concatenate(self._pairs_of_slice.pop(past)))
            last_ms = np.full(pairs.size, (past + 1) * self._slice_ms - 1, np.int64)
            user, item = (pairs >> 32).astype(np.int32), (pairs & 0xFFFFFFFF).astype(np.int32)
            yield EdgeOps(user, item, np.zeros(pairs.size, np.float32), last_ms)

    def is_ahead(self, now_ms: int) -> bool:
        """Whether the landmark lies so far after `now_ms` that it must move back."""
        return self.landmark_ms - now_ms > _RESCALE_HALF_LIVES * self._half_life_ms

    def rescale_factor(self, now_ms: int) -> float:
        """The power of four to multiply all stored weights by before edges around that time are inserted."""
        if not self._half_life_ms:
            return 1.0
        if self.landmark_ms == _ABSENT:
            self.landmark_ms = now_ms
        half_lives = (now_ms - self.landmark_ms) // self._half_life_ms
        if abs(half_lives) <= _RESCALE_HALF_LIVES:
            return 1.0
        if not self.edge_count:  # nothing to rescale, however far the time has moved
            self.landmark_ms = now_ms
            return 1.0
        return float(0.25 ** (half_lives // 2))

    def original_weight(self, weight: NDArray[np.float32], time: NDArray[np.int64]) -> NDArray[np.float32]:
        """The weights that edges of these stored weights were inserted with."""
        return (weight / np.exp2((time - self.landmark_ms) / self._half_life_ms)).astype(np.float32)

    def rescale(self, factor: float) -> None:
        """Multiplies all weights by a factor from `rescale_factor` and moves the landmark accordingly."""
        self.adjacency.weight[:] *= np.float32(factor)
        self.adjacency.degree[:] *= factor
        self.landmark_ms -= round(np.log2(factor)) * self._half_life_ms

    def edges_of(self, nodes: NDArray[np.int32]) -> Edges:
        """The edges of these nodes, each seen from the node, list after list."""
        adjacency = self.adjacency
        cells = cells_of(adjacency.lists, nodes)
        return Edges(
            node=np.repeat(nodes, adjacency.lists.length[nodes]),
            neighbour=adjacency.neighbour[cells],
            weight=adjacency.weight[cells],
            time=adjacency.time[cells],
        )

    def restore(self, edges: Edges, landmark_ms: int, oldest_slice: int) -> None:
        """Fills a graph that has nodes but no edges; edges: from the users' side."""
        self.landmark_ms, self.oldest_slice = landmark_ms, oldest_slice
        adjacency, count = self.adjacency, edges.node.size
        node = np.concatenate([edges.node, edges.neighbour])
        lengths = np.bincount(node, minlength=self.nodes)
        cells = lay_out(adjacency.lists, lengths)
        for column in (adjacency.neighbour, adjacency.weight, adjacency.twin, adjacency.time):
            grow(column, cells)
        order = np.argsort(node, kind="stable")
        place = np.empty(2 * count, np.int32)
        place[order] = np.arange(2 * count) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        at = adjacency.lists.start[node] + place
        adjacency.neighbour[at] = np.concatenate([edges.neighbour, edges.node])
        adjacency.twin[at] = np.concatenate([place[count:], place[:count]])
        adjacency.weight[at] = np.tile(edges.weight, 2)
        adjacency.time[at] = np.tile(edges.time, 2)
        adjacency.degree[: self.nodes] = np.bincount(node, np.tile(edges.weight, 2), minlength=self.nodes)
        if self.window_ms:
            self._remember_slices(EdgeOps(edges.node, edges.neighbour, edges.weight, edges.time))

    @property
    def edge_count(self) -> int:
        """Edges in the graph."""
        return int(self.adjacency.lists.length.sum(dtype=np.int64)) // 2

    def nbytes(self) -> tuple[int, int]:
        """Bytes held for the edges and for the nodes."""
        adjacency = self.adjacency
        cells = (adjacency.neighbour, adjacency.weight, adjacency.twin, adjacency.time)
        nodes = (*adjacency.lists, adjacency.degree)
        slices = sum(part.nbytes for parts in self._pairs_of_slice.values() for part in parts)
        return sum(column.nbytes for column in cells) + slices, sum(column.nbytes for column in nodes)

    def _admitted(self, ops: EdgeOps) -> EdgeOps:
        """The operations with stored weights, without insertions that are too old."""
        user, item, weight, time = ops
        if self.oldest_slice != _ABSENT:
            keep = (weight == 0.0) | (time // self._slice_ms >= self.oldest_slice)
            user, item, weight, time = user[keep], item[keep], weight[keep], time[keep]
        if self._half_life_ms and self.landmark_ms != _ABSENT:
            weight = (weight * np.exp2((time - self.landmark_ms) / self._half_life_ms)).astype(np.float32)
        return EdgeOps(user, item, weight, time)

    def _remember_slices(self, ops: EdgeOps) -> None:
        inserted = ops.weight > 0.0
        slices = ops.time[inserted] // self._slice_ms
        pairs = (ops.user[inserted].astype(np.int64) << 32) | ops.item[inserted]
        order = np.argsort(slices, kind="stable")
        numbers, firsts = np.unique(slices[order], return_index=True)
        for number, part in zip(numbers.tolist(), np.split(pairs[order], firsts[1:]), strict=False):
            self._pairs_of_slice.setdefault(number, []).append(part)

    def _grow_cells(self) -> None:
        adjacency = self.adjacency
        longest = int(adjacency.lists.length.max(initial=0))
        needed = adjacency.neighbour.shape[0] + 2 * longest + 64
        for column in (adjacency.neighbour, adjacency.weight, adjacency.twin, adjacency.time):
            grow(column, needed)


def effective_window(config: GraphConfig) -> int:
    """The window in ms, no longer than float32 can hold decayed weights; 0 for none."""
    windows = [config.window_ms, MAX_HALF_LIVES * config.half_life_ms]
    return min((window for window in windows if window), default=0)
