"""The node tables and the kernels of `graph_updater.propagation`, where the mathematics is."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graph_updater.adjacency import Adjacency, EdgeChanges
from graph_updater.prefetch import prefetch

FLOAT: Final = {"reassoc", "contract", "arcp", "nsz"}
"""Freedom for the compiler to vectorise sums; NaN and infinity keep their meaning."""

_KAPPA: Final = np.float32(0.4)
_AHEAD: Final = 6
"""How many rows ahead memory is asked for."""
_FALL: Final = np.float32(1 / 64)
"""Sums are computed anew when less than this of a degree is left: what was taken away leaves rounding errors."""
_RISE: Final = np.float32(4096.0)
"""So are the sums at the other end of an edge that outweighs all a node had by more than this, as the first after many
half-lives does: it is added with the ŷ of before, much too large, which the push then takes away again."""
_JUMP: Final = np.float32(4.0)
"""Where a new edge outweighs all a node had by more than this, the limits at both ends are found again after the push:
they were taken from a z that still held the neighbour's far larger ŷ of before."""
ROOT, BEARS, SLACK, MOVED, NORM, PEAK, RHO = 0, 1, 2, 3, 4, 5, 6
"""Columns of `head`: 1/√d; ‖z‖n^κ/√d; the least of that among the neighbours; μ; ‖z‖; the largest degree or weight
since the sums were last computed anew; then ρ and limits per layer."""


class Tables(NamedTuple):
    """The node tables as kernels see them; L layers, d dimensions."""

    base: NDArray[np.float32]  # (nodes, d) x⁽⁰⁾
    sums: NDArray[np.float32]  # (nodes, L, d) S⁽⁰⁾ … S⁽ᴸ⁻¹⁾
    given: NDArray[np.float32]  # (nodes, L, d) ŷ⁽⁰⁾ … ŷ⁽ᴸ⁻¹⁾
    head: NDArray[np.float32]  # (nodes, 6 + 2 L) see the column numbers above
    waiting: NDArray[np.uint8]  # (nodes,) bit l: queued for layer l
    queue: NDArray[np.int32]  # (nodes, 2) the queues of this and of the next layer
    dirty: NDArray[np.uint8]  # (nodes,) whether in `moved`
    moved: NDArray[np.int32]  # (nodes,) nodes that may have turned by more than asked for
    moved_count: NDArray[np.int64]  # (1,) how many of `moved` there are


class Weights(NamedTuple):
    """The constants of the model and of the error."""

    alphas: NDArray[np.float32]  # (L + 1,)
    epsilon: np.float32
    turn: np.float32  # sine of the angle by which z must turn to be dirty


@njit(cache=True, nogil=True, fastmath=FLOAT)
def apply_changes(tables: Tables, graph: Adjacency, weights: Weights, changes: EdgeChanges) -> None:
    """Changes the sums at both ends of every changed edge, then passes on what exceeds the limits."""
    _, layers, dim = tables.sums.shape
    touched = np.empty(2 * changes.user.shape[0], np.int32)
    rounded, rounded_count = np.empty(touched.shape[0], np.int32), 0
    risen, risen_count = np.empty(2 * touched.shape[0], np.int32), 0
    for e in range(changes.user.shape[0]):
        if e + _AHEAD < changes.user.shape[0]:
            for node in (changes.user[e + _AHEAD], changes.item[e + _AHEAD]):
                prefetch(tables.sums, node * layers * dim, layers * dim)
                prefetch(tables.given, node * layers * dim, layers * dim)
        u, v, weight = changes.user[e], changes.item[e], changes.weight[e]
        touched[2 * e], touched[2 * e + 1] = u, v
        for node, other in ((u, v), (v, u)):
            tables.head[node, PEAK] = max(tables.head[node, PEAK], abs(weight))
            ratio = abs(weight) * tables.head[node, ROOT] ** 2
            if ratio > _JUMP:
                risen[risen_count], risen[risen_count + 1] = node, other
                risen_count += 2
            if ratio > _RISE:
                rounded[rounded_count] = other
                rounded_count += 1
        for layer in range(layers):
            for k in range(dim):
                tables.sums[u, layer, k] += weight * tables.given[v, layer, k]
            for k in range(dim):
                tables.sums[v, layer, k] += weight * tables.given[u, layer, k]
    _look_at(tables, graph, weights, touched)
    for e in range(changes.user.shape[0]):
        u, v = changes.user[e], changes.item[e]
        tables.head[u, SLACK] = min(tables.head[u, SLACK], tables.head[v, BEARS])
        tables.head[v, SLACK] = min(tables.head[v, SLACK], tables.head[u, BEARS])
    _push(tables, graph, weights, touched)
    if risen_count:
        resum(tables, graph, rounded[:rounded_count])
        _look_at(tables, graph, weights, risen[:risen_count])
        _find_slack(tables, graph, risen[:risen_count])
        _push(tables, graph, weights, risen[:risen_count])


@njit(cache=True, nogil=True)
def look_and_push(tables: Tables, graph: Adjacency, weights: Weights, nodes: NDArray[np.int32]) -> None:
    """Looks at nodes whose x⁽⁰⁾ or sums were changed from outside, and passes on what exceeds the limits."""
    _look_at(tables, graph, weights, nodes)
    _push(tables, graph, weights, nodes)


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _look_at(tables: Tables, graph: Adjacency, weights: Weights, nodes: NDArray[np.int32]) -> None:
    """Brings what `head` knows of these nodes up to date, queues them for every layer and calls them dirty."""
    layers, dim = tables.sums.shape[1], tables.base.shape[1]
    z = np.empty(dim, np.float32)
    for i in range(nodes.shape[0]):
        if i + _AHEAD < nodes.shape[0]:
            prefetch(tables.base, nodes[i + _AHEAD] * dim, dim)
        v = nodes[i]
        if tables.waiting[v]:
            continue
        tables.waiting[v] = (1 << layers) - 1
        head, edges = tables.head[v], graph.lists.length[v]
        if edges == 0:
            tables.sums[v] = 0.0
            head[ROOT], head[SLACK] = 0.0, np.inf
            head[PEAK] = 0.0
        else:
            head[PEAK] = max(head[PEAK], np.float32(graph.degree[v]))
            if graph.degree[v] < head[PEAK] * _FALL:
                _sum_anew(tables, graph, v)
            head[ROOT] = 1.0 / np.sqrt(graph.degree[v])
        _combine(tables, weights, v, z)
        square = np.float32(0.0)
        for k in range(dim):
            square += z[k] * z[k]
        head[NORM] = np.sqrt(square)
        head[BEARS] = head[NORM] * np.float32(edges) ** _KAPPA * head[ROOT]
        head[MOVED] = np.inf
        _call_dirty(tables, v)


@njit(cache=True, nogil=True)
def _push(tables: Tables, graph: Adjacency, weights: Weights, nodes: NDArray[np.int32]) -> None:
    """Layer by layer, passes on the residuals of these nodes and of those reached that exceed their limits."""
    layers = tables.sums.shape[1]
    delta = np.empty(tables.base.shape[1], np.float32)
    queued = 0
    for layer in range(layers):
        bit, ahead = 1 << layer, 0
        for i in range(nodes.shape[0] + queued):
            u = nodes[i] if i < nodes.shape[0] else tables.queue[i - nodes.shape[0], layer & 1]
            if tables.waiting[u] & bit:
                tables.waiting[u] ^= bit
                size = _take_residual(tables, graph, weights, layer, u, delta)
                if size > 0.0:
                    ahead = _give(tables, graph, weights, layer, u, delta, size, ahead)
        queued = ahead


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _take_residual(
    tables: Tables, graph: Adjacency, weights: Weights, layer: int, u: int, delta: NDArray[np.float32]
) -> float:
    """Sets ŷ to y and `delta` to the difference, if that exceeds u's limit; its norm, or 0 where it does not."""
    layers, dim, head = tables.sums.shape[1], delta.shape[0], tables.head[u]
    source = tables.base[u] if layer == 0 else tables.sums[u, layer - 1]
    given = tables.given[u, layer]
    scale = head[ROOT] if layer == 0 else head[ROOT] * head[ROOT]
    square, residual = np.float32(0.0), np.float32(0.0)
    for k in range(dim):
        y = scale * source[k]
        delta[k] = y - given[k]
        square += y * y
        residual += delta[k] * delta[k]
    if graph.lists.length[u] == 0:
        given[:] = 0.0
        head[RHO + layer] = head[RHO + layers + layer] = 0.0
        return 0.0
    limit = weights.epsilon * max(np.sqrt(square), head[SLACK])
    head[RHO + layers + layer] = limit
    if residual <= limit * limit:
        head[RHO + layer] = np.sqrt(residual)
        return 0.0
    for k in range(dim):
        given[k] = scale * source[k]
    head[RHO + layer] = 0.0
    return float(np.sqrt(residual))


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _give(
    tables: Tables,
    graph: Adjacency,
    weights: Weights,
    layer: int,
    u: int,
    delta: NDArray[np.float32],
    size: float,
    ahead: int,
) -> int:
    """Adds `delta` to the neighbours' sums; queues for the next layer whom it may carry over the limit."""
    layers, dim = tables.sums.shape[1], delta.shape[0]
    deeper = layer + 1
    bit, alpha = 1 << deeper, weights.alphas[deeper]
    slack = np.float32(np.inf)
    start = graph.lists.start[u]
    end = start + graph.lists.length[u]
    for cell in range(start, end):
        if cell + _AHEAD < end:
            later = graph.neighbour[cell + _AHEAD]
            prefetch(tables.sums, (later * layers + layer) * dim, dim)
            prefetch(tables.head, later * tables.head.shape[1], tables.head.shape[1])
        v, weight = graph.neighbour[cell], graph.weight[cell]
        for k in range(dim):
            tables.sums[v, layer, k] += weight * delta[k]
        head = tables.head[v]
        step = weight * np.float32(size) * head[ROOT]
        head[MOVED] += alpha * step
        if head[MOVED] > weights.turn * head[NORM]:
            _call_dirty(tables, v)
        if deeper < layers:
            head[RHO + deeper] += step * head[ROOT]
            if head[RHO + deeper] > head[RHO + layers + deeper] and not tables.waiting[v] & bit:
                tables.waiting[v] |= bit
                tables.queue[ahead, deeper & 1] = v
                ahead += 1
        slack = min(slack, head[BEARS])
    tables.head[u, SLACK] = slack
    return ahead


@njit(cache=True, nogil=True)
def _call_dirty(tables: Tables, v: int) -> None:
    if not tables.dirty[v]:
        tables.dirty[v] = 1
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
    """Sums and degrees of these nodes from their edges."""
    for i in range(nodes.shape[0]):
        _sum_anew(tables, graph, nodes[i])


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _sum_anew(tables: Tables, graph: Adjacency, v: int) -> None:
    tables.sums[v] = 0.0
    degree = 0.0
    start = graph.lists.start[v]
    for cell in range(start, start + graph.lists.length[v]):
        u, weight = graph.neighbour[cell], graph.weight[cell]
        degree += np.float64(weight)
        for layer in range(tables.sums.shape[1]):
            _add(tables.sums[v, layer], weight, tables.given[u, layer])
    graph.degree[v] = degree
    tables.head[v, PEAK] = np.float32(degree)


@njit(cache=True, nogil=True, fastmath=FLOAT)
def recompute(tables: Tables, graph: Adjacency, weights: Weights, nodes: NDArray[np.int32]) -> None:
    """Sets ŷ to y, layer by layer, then the sums that follow; at last the limits."""
    for layer in range(tables.sums.shape[1]):
        for v in nodes:
            root = np.float32(1.0 / np.sqrt(graph.degree[v])) if graph.lists.length[v] else np.float32(0.0)
            tables.given[v, layer] = 0.0
            if layer == 0:
                _add(tables.given[v, layer], root, tables.base[v])
            else:
                _add(tables.given[v, layer], root * root, tables.sums[v, layer - 1])
        for v in nodes:
            tables.sums[v, layer] = 0.0
            start = graph.lists.start[v]
            for cell in range(start, start + graph.lists.length[v]):
                _add(tables.sums[v, layer], graph.weight[cell], tables.given[graph.neighbour[cell], layer])
    _look_at(tables, graph, weights, nodes)
    _find_slack(tables, graph, nodes)
    _push(tables, graph, weights, nodes)


@njit(cache=True, nogil=True)
def _find_slack(tables: Tables, graph: Adjacency, nodes: NDArray[np.int32]) -> None:
    """What the most sensitive neighbour of each of these nodes bears."""
    for v in nodes:
        start = graph.lists.start[v]
        tables.head[v, SLACK] = np.inf
        for cell in range(start, start + graph.lists.length[v]):
            tables.head[v, SLACK] = min(tables.head[v, SLACK], tables.head[graph.neighbour[cell], BEARS])


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _add(row: NDArray[np.float32], factor: float, other: NDArray[np.float32]) -> None:
    """Adds factor · other to row, both (d,)."""
    single = np.float32(factor)
    for k in range(row.shape[0]):
        row[k] += single * other[k]
