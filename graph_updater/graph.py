"""The interactions as a weighted bipartite graph: growable adjacency with edge times, a degree cap, expiry and decay.

An edge is stored twice, once in each end's list, as neighbour, weight, event time and `twin`, its place in the other
end's list. A pair is looked up in the shorter of its two lists, one contiguous scan; with the twin, removal needs no
search in the longer one. Of one pair's interactions the latest in event time counts, so that repeated and late ones
change nothing.

Decay. An edge of age a counts w·2^(-a/H). LightGCN's propagation D^-½ A D^-½ does not change when all weights are
multiplied by one factor. So instead of letting old weights fall, new ones rise (forward decay; Cormode et al., ICDE
2009): an edge with event time t is stored as w·2^((t - landmark)/H), true to the decayed weights up to the factor
2^((now - landmark)/H) common to all. Time passing costs nothing. Before the factor leaves the range of float32 the
landmark is moved on and all weights are divided by a power of four, which is exact in binary floating point, as is the
square root of it that other quantities need (`BipartiteGraph.rescale`). Edges older than `MAX_HALF_LIVES` are dropped.

Expiry. Event time is cut into slices of 1/256 of the window; an edge leaves when its slice has left the window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graph_updater.config import GraphConfig
from graph_updater.lists import (
    NO_BLOCK,
    Lists,
    add_lists,
    cells_of,
    empty_lists,
    free_block,
    grow,
    is_full,
    lay_out,
    take_block,
)

MAX_HALF_LIVES: Final = 48
_RESCALE_HALF_LIVES: Final = 32
_SLICES_PER_WINDOW: Final = 256
_ABSENT: Final = -1


class Adjacency(NamedTuple):
    """The arrays of the graph, as kernels see them. Node columns have one entry per node, edge columns one per cell."""

    lists: Lists
    degree: NDArray[np.float64]  # (nodes,) sum of the node's edge weights
    neighbour: NDArray[np.int32]  # (cells,)
    weight: NDArray[np.float32]  # (cells,)
    twin: NDArray[np.int32]  # (cells,) place of the same edge in the neighbour's list
    time: NDArray[np.int64]  # (cells,) event time in ms


class EdgeOps(NamedTuple):
    """What is to happen to pairs, in order. A positive weight sets the edge; 0 removes one that is not newer."""

    user: NDArray[np.int32]  # (ops,)
    item: NDArray[np.int32]  # (ops,)
    weight: NDArray[np.float32]  # (ops,)
    time: NDArray[np.int64]  # (ops,) event time in ms


class EdgeChanges(NamedTuple):
    """What did happen: by how much the weight of a pair's edge grew. Evictions by the cap are among them."""

    user: NDArray[np.int32]  # (changes,)
    item: NDArray[np.int32]  # (changes,)
    weight: NDArray[np.float32]  # (changes,)


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
        self.window_ms = _effective_window(config)
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
        """Makes room for `needed` nodes in all; new ones have no edges."""
        self.nodes = needed
        add_lists(self.adjacency.lists, self.nodes)
        grow(self.adjacency.degree, self.nodes)

    def apply(self, ops: EdgeOps) -> EdgeChanges:
        """Carries out the operations in order; what was too old to enter is left out.

        With decay the weights in the answer are stored weights: call `rescale_factor` with the newest time before.
        """
        ops = self._admitted(ops)
        room = 3 * ops.user.shape[0]
        changes = EdgeChanges(np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.float32))
        done, changed = 0, 0
        while True:
            done, changed = _apply(self.adjacency, ops, changes, done, changed, self._cap)
            if done == ops.user.shape[0]:
                break
            self._grow_cells()
        if self.window_ms:
            self._remember_slices(ops)
        return EdgeChanges(changes.user[:changed], changes.item[:changed], changes.weight[:changed])

    def expired(self, now_ms: int) -> Iterator[EdgeOps]:
        """The removals that are due at `now_ms`, slice by slice; each is to be applied before the next is taken."""
        if not self.window_ms:
            return
        self.oldest_slice = max(self.oldest_slice, (now_ms - self.window_ms) // self._slice_ms + 1)
        for past in sorted(number for number in self._pairs_of_slice if number < self.oldest_slice):
            pairs = np.unique(np.concatenate(self._pairs_of_slice.pop(past)))
            last_ms = np.full(pairs.size, (past + 1) * self._slice_ms - 1, np.int64)
            user, item = (pairs >> 32).astype(np.int32), (pairs & 0xFFFFFFFF).astype(np.int32)
            yield EdgeOps(user, item, np.zeros(pairs.size, np.float32), last_ms)

    def rescale_factor(self, newest_ms: int) -> float:
        """The power of four by which all stored weights must be multiplied before an edge of that time may enter."""
        if not self._half_life_ms:
            return 1.0
        if self.landmark_ms == _ABSENT:
            self.landmark_ms = newest_ms
        half_lives = (newest_ms - self.landmark_ms) // self._half_life_ms
        return 0.25 ** (half_lives // 2) if half_lives > _RESCALE_HALF_LIVES else 1.0

    def rescale(self, factor: float) -> None:
        """Multiplies all weights by a factor from `rescale_factor` and moves the landmark to match."""
        self.adjacency.weight[:] *= np.float32(factor)
        self.adjacency.degree[:] *= factor
        self.landmark_ms -= round(np.log2(factor)) * self._half_life_ms

    def edges_of(self, nodes: NDArray[np.int32]) -> Edges:
        """The nodes' halves of their edges, list after list."""
        adjacency = self.adjacency
        cells = cells_of(adjacency.lists, nodes)
        return Edges(
            node=np.repeat(nodes, adjacency.lists.length[nodes]),
            neighbour=adjacency.neighbour[cells],
            weight=adjacency.weight[cells],
            time=adjacency.time[cells],
        )

    def restore(self, edges: Edges, landmark_ms: int, oldest_slice: int) -> None:
        """Fills an empty graph, whose nodes are there, with edges that were taken from the users' side."""
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
        """The operations with stored weights, without insertions that are already too old."""
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


def _effective_window(config: GraphConfig) -> int:
    """The window in ms, where decay alone also ends an edge's life before float32 does; 0 for none."""
    windows = [config.window_ms, MAX_HALF_LIVES * config.half_life_ms]
    return min((window for window in windows if window), default=0)


@njit(cache=True, nogil=True)
def _apply(graph: Adjacency, ops: EdgeOps, changes: EdgeChanges, done: int, changed: int, cap: int) -> tuple[int, int]:
    """Carries out operations from number `done` on, until all are done or the columns must grow first."""
    for e in range(done, ops.user.shape[0]):
        u, v, weight, time = ops.user[e], ops.item[e], ops.weight[e], ops.time[e]
        place = _find(graph, u, v)
        if place != _ABSENT:
            if weight > 0.0:
                changed = _renew(graph, changes, changed, (u, place), (weight, time))
            elif graph.time[graph.lists.start[u] + place] <= time:
                changed = _remove(graph, changes, changed, (u, place))
        elif weight > 0.0:
            oldest_u, oldest_v = _oldest_at_cap(graph, u, cap), _oldest_at_cap(graph, v, cap)
            if _is_older(graph, time, u, oldest_u) or _is_older(graph, time, v, oldest_v):
                continue
            if not (_make_room(graph, u) and _make_room(graph, v)):
                return e, changed
            if oldest_u != _ABSENT:
                changed = _remove(graph, changes, changed, (u, oldest_u))
            if oldest_v != _ABSENT:
                changed = _remove(graph, changes, changed, (v, oldest_v))
            changed = _insert(graph, changes, changed, (u, v), (weight, time))
    return ops.user.shape[0], changed


@njit(cache=True, nogil=True)
def _find(graph: Adjacency, u: int, v: int) -> int:
    """The edge's place in u's list, or _ABSENT; looks through the shorter of the two lists."""
    lists = graph.lists
    if lists.length[u] <= lists.length[v]:
        for cell in range(lists.start[u], lists.start[u] + lists.length[u]):
            if graph.neighbour[cell] == v:
                return int(cell - lists.start[u])
        return _ABSENT
    for cell in range(lists.start[v], lists.start[v] + lists.length[v]):
        if graph.neighbour[cell] == u:
            return int(graph.twin[cell])
    return _ABSENT


@njit(cache=True, nogil=True)
def _renew(
    graph: Adjacency, changes: EdgeChanges, changed: int, edge: tuple[int, int], value: tuple[float, int]
) -> int:
    """Gives the edge at (node, place) the weight and time of a later interaction; at equal times the heavier counts."""
    (u, place), (weight, time) = edge, value
    here = graph.lists.start[u] + place
    before = graph.weight[here]
    if time < graph.time[here] or (time == graph.time[here] and weight <= before):
        return changed
    v = graph.neighbour[here]
    there = graph.lists.start[v] + graph.twin[here]
    graph.weight[here] = graph.weight[there] = weight
    graph.time[here] = graph.time[there] = time
    return int(_record(graph, changes, changed, (u, v), weight - before))


@njit(cache=True, nogil=True)
def _insert(
    graph: Adjacency, changes: EdgeChanges, changed: int, pair: tuple[int, int], value: tuple[float, int]
) -> int:
    """Appends a new edge to both lists, which have room."""
    (u, v), (weight, time) = pair, value
    lists = graph.lists
    for node, other in ((u, v), (v, u)):
        cell = lists.start[node] + lists.length[node]
        graph.neighbour[cell] = other
        graph.weight[cell] = weight
        graph.time[cell] = time
        graph.twin[cell] = lists.length[other]
        if node == v:
            graph.twin[cell] -= 1
        lists.length[node] += 1
    return int(_record(graph, changes, changed, pair, weight))


@njit(cache=True, nogil=True)
def _remove(graph: Adjacency, changes: EdgeChanges, changed: int, edge: tuple[int, int]) -> int:
    """Takes the edge at (node, place) out of both lists; the last entry of each list fills the gap."""
    u, place = edge
    here = graph.lists.start[u] + place
    v, there, weight = graph.neighbour[here], graph.twin[here], graph.weight[here]
    _take_out(graph, u, place)
    _take_out(graph, v, there)
    return int(_record(graph, changes, changed, (u, v), -weight))


@njit(cache=True, nogil=True)
def _take_out(graph: Adjacency, node: int, place: int) -> None:
    lists = graph.lists
    lists.length[node] -= 1
    last = lists.start[node] + lists.length[node]
    cell = lists.start[node] + place
    if cell != last:
        graph.neighbour[cell] = graph.neighbour[last]
        graph.weight[cell] = graph.weight[last]
        graph.time[cell] = graph.time[last]
        graph.twin[cell] = graph.twin[last]
        graph.twin[lists.start[graph.neighbour[cell]] + graph.twin[cell]] = place
    if lists.length[node] == 0:
        free_block(lists, graph.neighbour, lists.start[node], lists.size_class[node])
        lists.size_class[node] = NO_BLOCK


@njit(cache=True, nogil=True)
def _record(graph: Adjacency, changes: EdgeChanges, changed: int, pair: tuple[int, int], weight: float) -> int:
    """Notes the change for the sums and keeps the degrees; a node without edges has degree 0, not a rounding error."""
    changes.user[changed], changes.item[changed], changes.weight[changed] = pair[0], pair[1], weight
    for node in pair:
        graph.degree[node] += weight
        if graph.lists.length[node] == 0:
            graph.degree[node] = 0.0
    return changed + 1


@njit(cache=True, nogil=True)
def _oldest_at_cap(graph: Adjacency, node: int, cap: int) -> int:
    """The place of the oldest edge if the node has as many as it may have, else _ABSENT."""
    lists = graph.lists
    if cap == 0 or lists.length[node] < cap:
        return _ABSENT
    start = lists.start[node]
    oldest = 0
    for place in range(1, lists.length[node]):
        if graph.time[start + place] < graph.time[start + oldest]:
            oldest = place
    return oldest


@njit(cache=True, nogil=True)
def _is_older(graph: Adjacency, time: int, node: int, place: int) -> bool:
    """Whether an edge of that time is older than all that a full node holds."""
    return place != _ABSENT and time < graph.time[graph.lists.start[node] + place]


@njit(cache=True, nogil=True)
def _make_room(graph: Adjacency, node: int) -> bool:
    """Moves the list into a larger block if it is full; False when the columns must grow first."""
    lists = graph.lists
    if not is_full(lists, node):
        return True
    size_class = lists.size_class[node] + 1
    block = take_block(lists, graph.neighbour, size_class)
    if block == NO_BLOCK:
        return False
    before = lists.start[node]
    for k in range(lists.length[node]):
        graph.neighbour[block + k] = graph.neighbour[before + k]
        graph.weight[block + k] = graph.weight[before + k]
        graph.twin[block + k] = graph.twin[before + k]
        graph.time[block + k] = graph.time[before + k]
    if lists.size_class[node] != NO_BLOCK:
        free_block(lists, graph.neighbour, before, lists.size_class[node])
    lists.start[node] = block
    lists.size_class[node] = size_class
    return True
