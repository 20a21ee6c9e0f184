"""The graph's arrays and the kernel that changes edges in them.

An edge is stored twice, once in each end's list, as neighbour, weight, event time and `twin`, its place in the other
end's list. A pair is looked up by scanning the shorter of its two lists; the twin gives the place in the longer one. Of
one pair's interactions the latest in event time counts, so repeated and late ones change nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graph_updater.graph.lists import NO_BLOCK, Lists, free_block, is_full, take_block

_ABSENT: Final = -1
_LEAST_REST: Final = 1e-3
"""Of a weight that was taken away: with less left, a degree is added up anew."""


class Adjacency(NamedTuple):
    """The arrays of the graph as the kernels see them: one entry per node, or one per cell of the lists."""

    lists: Lists
    degree: NDArray[np.float64]  # (nodes,) sum of the node's edge weights
    neighbour: NDArray[np.int32]  # (cells,)
    weight: NDArray[np.float32]  # (cells,)
    twin: NDArray[np.int32]  # (cells,) place of the same edge in the neighbour's list
    time: NDArray[np.int64]  # (cells,) event time in ms


class EdgeOps(NamedTuple):
    """Operations on pairs, in order. A positive weight sets the edge; 0 removes one that is not newer."""

    user: NDArray[np.int32]  # (ops,)
    item: NDArray[np.int32]  # (ops,)
    weight: NDArray[np.float32]  # (ops,)
    time: NDArray[np.int64]  # (ops,) event time in ms


class EdgeChanges(NamedTuple):
    """The changes made: by how much each edge's weight grew. Evictions by the degree cap are included."""

    user: NDArray[np.int32]  # (changes,)
    item: NDArray[np.int32]  # (changes,)
    weight: NDArray[np.float32]  # (changes,)


@njit(cache=True, nogil=True)
def apply_ops(
    graph: Adjacency, ops: EdgeOps, changes: EdgeChanges, done: int, changed: int, cap: int
) -> tuple[int, int]:
    """Applies operations from index `done` on. Returns early when the columns must grow first."""
    for e in range(done, ops.user.shape[0]):
        u, v, weight, time = ops.user[e], ops.item[e], ops.weight[e], ops.time[e]
        place = _find(graph, u, v)
        if place != _ABSENT:
            if weight > 0.0:
                changed = _update(graph, changes, changed, (u, place), (weight, time))
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
    """The edge's place in u's list, or _ABSENT; scans the shorter of the two lists."""
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
def _update(
    graph: Adjacency, changes: EdgeChanges, changed: int, edge: tuple[int, int], value: tuple[float, int]
) -> int:
    """Sets the edge at (node, place) to a later interaction; at equal times the heavier one counts."""
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
    """Removes the edge at (node, place) from both lists; the last entry of each list fills the gap."""
    u, place = edge
    here = graph.lists.start[u] + place
    v, there, weight = graph.neighbour[here], graph.twin[here], graph.weight[here]
    _remove_cell(graph, u, place)
    _remove_cell(graph, v, there)
    return int(_record(graph, changes, changed, (u, v), -weight))


@njit(cache=True, nogil=True)
def _remove_cell(graph: Adjacency, node: int, place: int) -> None:
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
    """Records the change and updates the degrees. One of which little remains is added up anew: a difference of large
    numbers would be as wrong as these are rounded. A node without edges gets degree 0 exactly.
    """
    changes.user[changed], changes.item[changed], changes.weight[changed] = pair[0], pair[1], weight
    for node in pair:
        graph.degree[node] += weight
        if graph.lists.length[node] == 0 or graph.degree[node] < _LEAST_REST * -weight:
            start = graph.lists.start[node]
            degree = 0.0
            for cell in range(start, start + graph.lists.length[node]):
                degree += np.float64(graph.weight[cell])
            graph.degree[node] = degree
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
    """Whether an edge of that time is older than all edges of a full node."""
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
