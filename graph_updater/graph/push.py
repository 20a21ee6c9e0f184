"""The kernels of `graph_updater.graph.propagation`, where the mathematics is."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graph_updater.graph.adjacency import Adjacency, EdgeChanges
from graph_updater.graph.node_tables import (
    IS_DIRTY,
    IS_ITEM,
    IS_OWED,
    LEAST_TOLERANCE,
    MOVED,
    NORM,
    OWED_QUEUE,
    PEAK,
    RHO,
    ROOT,
    TOLERANCE,
    Tables,
    Weights,
    is_one_of_several,
)
from graph_updater.graph.prefetch import prefetch

FLOAT: Final = {"reassoc", "contract", "arcp", "nsz"}
"""Freedom for the compiler to vectorise sums; NaN and infinity keep their meaning."""

_KAPPA: Final = np.float32(0.4)
_PREFETCH_AHEAD: Final = 6
"""Rows of neighbours lie anywhere in memory: each is requested this many rows before it is used."""
_RESUM_FALL: Final = np.float32(1 / 64)
"""Sums are recomputed when less than this share of the peak degree is left: what was removed leaves rounding errors."""
_RESUM_RISE: Final = np.float32(4096.0)
"""Sums of a node are recomputed when it gets an edge this many times heavier than all that its neighbour had before, as
the first after many half-lives is: the neighbour's ŷ of before, far too large, is added and then taken away again."""
_RELIMIT_RISE: Final = np.float32(4.0)
"""From this ratio on, tolerances at both ends of such an edge are computed again after the push: the first time z still
held the neighbour's old ŷ."""


@njit(cache=True, nogil=True, fastmath=FLOAT)
def apply_changes(tables: Tables, graph: Adjacency, weights: Weights, changes: EdgeChanges) -> None:
    """Updates the sums at both ends of every changed edge, then pushes the residuals that exceed their limits."""
    _, layers, dim = tables.sums.shape
    touched = np.empty(2 * changes.user.shape[0], np.int32)
    is_shared = is_one_of_several(tables)
    to_resum, to_resum_count = np.empty(touched.shape[0], np.int32), 0
    to_refresh, to_refresh_count = np.empty(2 * touched.shape[0], np.int32), 0
    for e in range(changes.user.shape[0]):
        if e + _PREFETCH_AHEAD < changes.user.shape[0]:
            for node in (changes.user[e + _PREFETCH_AHEAD], changes.item[e + _PREFETCH_AHEAD]):
                prefetch(tables.sums, node * layers * dim, layers * dim)
                prefetch(tables.pushed, node * tables.pushed.shape[1] * dim, layers * dim)
        u, v, weight = changes.user[e], changes.item[e], changes.weight[e]
        touched[2 * e], touched[2 * e + 1] = u, v
        if is_shared:
            _mark_owed(tables, v)
        for node, other in ((u, v), (v, u)):
            tables.head[node, PEAK] = max(tables.head[node, PEAK], abs(weight))
            ratio = abs(weight) * tables.head[node, ROOT] ** 2
            if ratio > _RELIMIT_RISE:
                to_refresh[to_refresh_count], to_refresh[to_refresh_count + 1] = node, other
                to_refresh_count += 2
            if ratio > _RESUM_RISE:
                to_resum[to_resum_count] = other
                to_resum_count += 1
        for layer in range(layers):
            for k in range(dim):
                tables.sums[u, layer, k] += weight * tables.pushed[v, layer, k]
            for k in range(dim):
                tables.sums[v, layer, k] += weight * tables.pushed[u, layer, k]
    _refresh(tables, graph, weights, touched)
    for e in range(changes.user.shape[0]):
        u, v = changes.user[e], changes.item[e]
        tables.head[u, LEAST_TOLERANCE] = min(tables.head[u, LEAST_TOLERANCE], tables.head[v, TOLERANCE])
        tables.head[v, LEAST_TOLERANCE] = min(tables.head[v, LEAST_TOLERANCE], tables.head[u, TOLERANCE])
    _push(tables, graph, weights, touched)
    if to_refresh_count:
        resum(tables, graph, to_resum[:to_resum_count])
        _refresh(tables, graph, weights, to_refresh[:to_refresh_count])
        _find_least_tolerance(tables, graph, to_refresh[:to_refresh_count])
        _push(tables, graph, weights, to_refresh[:to_refresh_count])


@njit(cache=True, nogil=True)
def refresh_and_push(tables: Tables, graph: Adjacency, weights: Weights, nodes: NDArray[np.int32]) -> None:
    """Refreshes nodes whose x⁽⁰⁾ or sums were changed from outside, and pushes residuals that exceed their limits."""
    _refresh(tables, graph, weights, nodes)
    _push(tables, graph, weights, nodes)


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _refresh(tables: Tables, graph: Adjacency, weights: Weights, nodes: NDArray[np.int32]) -> None:
    """Updates `head` for these nodes, queues them for every layer and marks them dirty."""
    layers, dim = tables.sums.shape[1], tables.base.shape[1]
    z = np.empty(dim, np.float32)
    for i in range(nodes.shape[0]):
        if i + _PREFETCH_AHEAD < nodes.shape[0]:
            prefetch(tables.base, nodes[i + _PREFETCH_AHEAD] * dim, dim)
        v = nodes[i]
        if tables.queued[v]:
            continue
        tables.queued[v] = (1 << layers) - 1
        head, edges = tables.head[v], _edges_of(tables, graph, v)
        if graph.lists.length[v] == 0:
            _resum_node(tables, graph, v)
            head[ROOT], head[LEAST_TOLERANCE] = 0.0, np.inf
        if edges > 0:
            degree = _degree_of(tables, graph, v)
            head[PEAK] = max(head[PEAK], np.float32(degree))
            if degree < head[PEAK] * _RESUM_FALL:
                _resum_node(tables, graph, v)
            head[ROOT] = 1.0 / np.sqrt(degree)
        _combine(tables, weights, v, z)
        square = np.float32(0.0)
        for k in range(dim):
            square += z[k] * z[k]
        head[NORM] = np.sqrt(square)
        head[TOLERANCE] = head[NORM] * np.float32(edges) ** _KAPPA * head[ROOT]
        head[MOVED] = np.inf
        _mark_dirty(tables, v)


@njit(cache=True, nogil=True)
def _push(tables: Tables, graph: Adjacency, weights: Weights, nodes: NDArray[np.int32]) -> None:
    """Layer by layer, pushes the residuals of these nodes, and of the nodes reached, that exceed their limits."""
    layers = tables.sums.shape[1]
    delta = np.empty(tables.base.shape[1], np.float32)
    reached = 0
    for layer in range(layers):
        bit, ahead = 1 << layer, 0
        for i in range(nodes.shape[0] + reached):
            u = nodes[i] if i < nodes.shape[0] else tables.queue[i - nodes.shape[0], layer & 1]
            if tables.queued[u] & bit:
                tables.queued[u] ^= bit
                size = _take_residual(tables, graph, weights, layer, u, delta)
                if size > 0.0:
                    ahead = _pass_on(tables, graph, weights, layer, u, delta, size, ahead)
        reached = ahead


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _take_residual(
    tables: Tables, graph: Adjacency, weights: Weights, layer: int, u: int, delta: NDArray[np.float32]
) -> float:
    """Sets ŷ to y and `delta` to the difference if that exceeds u's limit. Returns its norm, or 0 if it does not."""
    layers, dim, head = tables.sums.shape[1], delta.shape[0], tables.head[u]
    source = tables.base[u] if layer == 0 else tables.sums[u, layer - 1]
    pushed = tables.pushed[u, layer]
    scale = head[ROOT] if layer == 0 else head[ROOT] * head[ROOT]
    square, residual = np.float32(0.0), np.float32(0.0)
    for k in range(dim):
        y = scale * source[k]
        delta[k] = y - pushed[k]
        square += y * y
        residual += delta[k] * delta[k]
    if graph.lists.length[u] == 0:
        pushed[:] = 0.0
        head[RHO + layer] = head[RHO + layers + layer] = 0.0
        return 0.0
    limit = weights.epsilon * max(np.sqrt(square), head[LEAST_TOLERANCE])
    head[RHO + layers + layer] = limit
    if residual <= limit * limit:
        head[RHO + layer] = np.sqrt(residual)
        return 0.0
    for k in range(dim):
        pushed[k] = scale * source[k]
    head[RHO + layer] = 0.0
    return float(np.sqrt(residual))


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _pass_on(
    tables: Tables,
    graph: Adjacency,
    weights: Weights,
    layer: int,
    u: int,
    delta: NDArray[np.float32],
    size: float,
    ahead: int,
) -> int:
    """Adds `delta` to the neighbours' sums; queues neighbours for the next layer that may now exceed their limits."""
    layers, dim = tables.sums.shape[1], delta.shape[0]
    deeper = layer + 1
    bit, alpha = 1 << deeper, weights.alphas[deeper]
    least = np.float32(np.inf)
    is_shared = is_one_of_several(tables)
    start = graph.lists.start[u]
    end = start + graph.lists.length[u]
    for cell in range(start, end):
        if cell + _PREFETCH_AHEAD < end:
            later = graph.neighbour[cell + _PREFETCH_AHEAD]
            prefetch(tables.sums, (later * layers + layer) * dim, dim)
            prefetch(tables.head, later * tables.head.shape[1], tables.head.shape[1])
        v, weight = graph.neighbour[cell], graph.weight[cell]
        for k in range(dim):
            tables.sums[v, layer, k] += weight * delta[k]
        if is_shared:
            _mark_owed(tables, v)
        head = tables.head[v]
        step = weight * np.float32(size) * head[ROOT]
        head[MOVED] += alpha * step
        if head[MOVED] > weights.turn * head[NORM]:
            _mark_dirty(tables, v)
        if deeper < layers:
            head[RHO + deeper] += step * head[ROOT]
            if head[RHO + deeper] > head[RHO + layers + deeper] and not tables.queued[v] & bit:
                tables.queued[v] |= bit
                tables.queue[ahead, deeper & 1] = v
                ahead += 1
        least = min(least, head[TOLERANCE])
    tables.head[u, LEAST_TOLERANCE] = least
    return ahead


@njit(cache=True, nogil=True)
def _degree_of(tables: Tables, graph: Adjacency, v: int) -> float:
    """The degree over all shards; the graph's own is that of this shard's edges."""
    if is_one_of_several(tables):
        return float(graph.degree[v] + tables.head[v, RHO + 2 * tables.sums.shape[1]])
    return float(graph.degree[v])


@njit(cache=True, nogil=True)
def _edges_of(tables: Tables, graph: Adjacency, v: int) -> int:
    """How many edges a node has over all shards."""
    own = int(graph.lists.length[v])
    if is_one_of_several(tables):
        return own + int(tables.head[v, RHO + 2 * tables.sums.shape[1] + 1])
    return own


@njit(cache=True, nogil=True)
def _mark_owed(tables: Tables, v: int) -> None:
    """This shard's part of an item may have moved."""
    if tables.dirty[v] & (IS_ITEM | IS_OWED) == IS_ITEM:
        tables.dirty[v] |= IS_OWED
        tables.queue[tables.moved_count[1], OWED_QUEUE] = v
        tables.moved_count[1] += 1


@njit(cache=True, nogil=True)
def _mark_dirty(tables: Tables, v: int) -> None:
    if not tables.dirty[v] & IS_DIRTY:
        tables.dirty[v] |= IS_DIRTY
        tables.moved[tables.moved_count[0]] = v
        tables.moved_count[0] += 1


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _combine(tables: Tables, weights: Weights, v: int, z: NDArray[np.float32]) -> None:
    """Computes z = α₀ x⁽⁰⁾ + Σ αₗ₊₁ S⁽ˡ⁾ / √d of one node; z: (d,)."""
    z[:] = 0.0
    _add(z, weights.alphas[0], tables.base[v])
    for layer in range(tables.sums.shape[1]):
        _add(z, weights.alphas[layer + 1] * tables.head[v, ROOT], tables.sums[v, layer])


@njit(cache=True, nogil=True)
def embed(tables: Tables, weights: Weights, nodes: NDArray[np.int32], z: NDArray[np.float32]) -> None:
    """Computes z of these nodes; z: (nodes, d)."""
    for i in range(nodes.shape[0]):
        _combine(tables, weights, nodes[i], z[i])


@njit(cache=True, nogil=True, fastmath=FLOAT)
def resum(tables: Tables, graph: Adjacency, nodes: NDArray[np.int32]) -> None:
    """Recomputes sums and degrees of these nodes from their edges."""
    for i in range(nodes.shape[0]):
        _resum_node(tables, graph, nodes[i])


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _resum_node(tables: Tables, graph: Adjacency, v: int) -> None:
    layers = tables.sums.shape[1]
    tables.sums[v] = 0.0
    if is_one_of_several(tables):
        tables.sums[v] = tables.pushed[v, layers:]
        _mark_owed(tables, v)
    degree = 0.0
    start = graph.lists.start[v]
    for cell in range(start, start + graph.lists.length[v]):
        u, weight = graph.neighbour[cell], graph.weight[cell]
        degree += np.float64(weight)
        for layer in range(layers):
            _add(tables.sums[v, layer], weight, tables.pushed[u, layer])
    graph.degree[v] = degree
    tables.head[v, PEAK] = np.float32(_degree_of(tables, graph, v))


@njit(cache=True, nogil=True, fastmath=FLOAT)
def recompute(tables: Tables, graph: Adjacency, weights: Weights, nodes: NDArray[np.int32]) -> None:
    """Recomputes ŷ and the sums layer by layer, then tolerances and limits."""
    for layer in range(tables.sums.shape[1]):
        for v in nodes:
            degree = _degree_of(tables, graph, v)
            root = np.float32(1.0 / np.sqrt(degree)) if _edges_of(tables, graph, v) else np.float32(0.0)
            tables.pushed[v, layer] = 0.0
            if layer == 0:
                _add(tables.pushed[v, layer], root, tables.base[v])
            else:
                _add(tables.pushed[v, layer], root * root, tables.sums[v, layer - 1])
        for v in nodes:
            tables.sums[v, layer] = 0.0
            if is_one_of_several(tables):
                tables.sums[v, layer] = tables.pushed[v, tables.sums.shape[1] + layer]
                _mark_owed(tables, v)
            start = graph.lists.start[v]
            for cell in range(start, start + graph.lists.length[v]):
                _add(tables.sums[v, layer], graph.weight[cell], tables.pushed[graph.neighbour[cell], layer])
    _refresh(tables, graph, weights, nodes)
    _find_least_tolerance(tables, graph, nodes)
    _push(tables, graph, weights, nodes)


@njit(cache=True, nogil=True)
def _find_least_tolerance(tables: Tables, graph: Adjacency, nodes: NDArray[np.int32]) -> None:
    """Recomputes the least tolerance among the neighbours of these nodes."""
    for v in nodes:
        start = graph.lists.start[v]
        tables.head[v, LEAST_TOLERANCE] = np.inf
        for cell in range(start, start + graph.lists.length[v]):
            tables.head[v, LEAST_TOLERANCE] = min(
                tables.head[v, LEAST_TOLERANCE], tables.head[graph.neighbour[cell], TOLERANCE]
            )


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _add(row: NDArray[np.float32], factor: float, other: NDArray[np.float32]) -> None:
    """Adds factor · other to row, both (d,)."""
    single = np.float32(factor)
    for k in range(row.shape[0]):
        row[k] += single * other[k]
