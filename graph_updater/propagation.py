"""LightGCN embeddings kept fresh per edge: residual push, layer by layer within a micro-batch, with a bound.

**What is kept.** LightGCN (He et al., SIGIR 2020) propagates x⁽ˡ⁺¹⁾ = D^-½ A D^-½ x⁽ˡ⁾ and answers z = Σ αₗ x⁽ˡ⁾; A
holds the edges' weights w, D their sums d per node. With y⁽ˡ⁾ = D^-½ x⁽ˡ⁾ and S⁽ˡ⁾ᵥ = Σᵤ w_uv y⁽ˡ⁾ᵤ,

    y⁽⁰⁾ᵥ = x⁽⁰⁾ᵥ / √dᵥ        y⁽ˡ⁺¹⁾ᵥ = S⁽ˡ⁾ᵥ / dᵥ        zᵥ = α₀ x⁽⁰⁾ᵥ + Σₗ αₗ₊₁ S⁽ˡ⁾ᵥ / √dᵥ

Kept per node and layer 0 … L-1: the sum S and ŷ, the value of y that the neighbours' sums contain, so that
S⁽ˡ⁾ᵥ = Σᵤ w_uv ŷ⁽ˡ⁾ᵤ at all times. A changed edge changes two sums and two degrees. Then, for l = 0 … L-1, every node
whose residual ‖y⁽ˡ⁾ - ŷ⁽ˡ⁾‖ exceeds its limit t⁽ˡ⁾ gives the difference to its neighbours' sums and sets ŷ = y.

**The bound.** Let ỹ be y as the kept sums give it, and e⁽ˡ⁾ᵥ a bound of its error: e⁽⁰⁾ᵥ = 0. After a micro-batch every
residual is within its limit, so by the triangle inequality, whatever the limits are,

    b⁽ˡ⁾ᵥ = Σᵤ w_uv (t⁽ˡ⁾ᵤ + e⁽ˡ⁾ᵤ)        e⁽ˡ⁺¹⁾ᵥ = b⁽ˡ⁾ᵥ / dᵥ        ‖z̃ᵥ - zᵥ‖ ≤ Σₗ αₗ₊₁ b⁽ˡ⁾ᵥ / √dᵥ

with b⁽ˡ⁾ᵥ bounding the error of S⁽ˡ⁾ᵥ. `error_bounds` computes the last for every node. With ε = 0 all limits are 0
and embeddings are exact up to rounding.

**The limits.** t⁽ˡ⁾ᵤ = ε max(‖ỹ⁽ˡ⁾ᵤ‖, sᵤ), where sᵤ is what the most sensitive neighbour bears: the least of
‖zᵥ‖ nᵥ^κ / √dᵥ over the neighbours v of u, which have nᵥ edges. Errors of size t from nᵥ neighbours add up in zᵥ to
t √(Σw²/dᵥ) ≈ t √(dᵥ/nᵥ) if their directions are unrelated, and to t √dᵥ if they are all the same: with κ = ½ or 0
that is ε relative to ‖zᵥ‖. Real ones lie nearer to the former; κ = 0.4 spends the fewest pushes for the smallest cosine
over all nodes. So a hub, whose share in any one neighbour is small, is not passed on to thousands each time it has
changed by a few per cent; and where neighbours are small (a new user without x⁽⁰⁾) the limit is relative to y itself.

**Looking only where it can matter.** ρ⁽ˡ⁾ᵥ bounds the residual from above without looking at it: a push of δ over an
edge of weight w adds w‖δ‖/dᵥ. Only once ρ exceeds the limit is the residual computed, and pushed if it exceeds the
limit too. In the same way μᵥ bounds how far zᵥ has moved since it was last taken, so that `take_dirty` names only
nodes that can have turned by more than asked for.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graph_updater.config import InvalidGraphConfig
from graph_updater.graph import Adjacency, BipartiteGraph, EdgeChanges
from graph_updater.lists import grow
from graph_updater.prefetch import prefetch

MAX_LAYERS: Final = 7
FLOAT: Final = {"reassoc", "contract", "arcp", "nsz"}
"""Freedom for the compiler to vectorise sums; NaN and infinity keep their meaning."""

_KAPPA: Final = np.float32(0.4)
_AHEAD: Final = 6
"""How many rows ahead memory is asked for."""
_ROOT, _BEARS, _SLACK, _MOVED, _NORM, _RHO = 0, 1, 2, 3, 4, 5
"""Columns of `head`: 1/√d; ‖z‖n^κ/√d; the least of that among the neighbours; μ; ‖z‖; then ρ and limits per layer."""


class Tables(NamedTuple):
    """The node tables as kernels see them; L layers, d dimensions."""

    base: NDArray[np.float32]  # (nodes, d) x⁽⁰⁾
    sums: NDArray[np.float32]  # (nodes, L, d) S⁽⁰⁾ … S⁽ᴸ⁻¹⁾
    given: NDArray[np.float32]  # (nodes, L, d) ŷ⁽⁰⁾ … ŷ⁽ᴸ⁻¹⁾
    head: NDArray[np.float32]  # (nodes, 5 + 2 L) see the column numbers above
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


class Propagation:
    """Embeddings of all nodes of a graph.

    Args:
        graph: whose nodes and edges these are; changed only together with this.
        dim: numbers in an embedding.
        alphas: the layers' weights α₀ … α_L, at least two, none negative.
        epsilon: see above; 0 is exact.
        min_cosine: nodes are dirty once their z may have turned further than this since it was last taken.
    """

    def __init__(
        self, graph: BipartiteGraph, dim: int, alphas: tuple[float, ...], *, epsilon: float, min_cosine: float
    ) -> None:
        self._graph = graph
        self.dim = dim
        self.layers = len(alphas) - 1
        self._weights = Weights(
            alphas=np.array(_checked(alphas), np.float32),
            epsilon=np.float32(epsilon),
            turn=np.float32(np.sqrt(1.0 - min_cosine**2)),
        )
        self.tables = Tables(
            base=np.zeros((0, dim), np.float32),
            sums=np.zeros((0, self.layers, dim), np.float32),
            given=np.zeros((0, self.layers, dim), np.float32),
            head=np.zeros((0, _RHO + 2 * self.layers), np.float32),
            waiting=np.zeros(0, np.uint8),
            queue=np.zeros((0, 2), np.int32),
            dirty=np.zeros(0, np.uint8),
            moved=np.zeros(0, np.int32),
            moved_count=np.zeros(1, np.int64),
        )
        self._next_repair = 0

    def add_nodes(self, needed: int) -> None:
        """Makes room for `needed` nodes in all; new ones have x⁽⁰⁾ = 0 and no edges."""
        for table in self.tables[:-1]:
            grow(table, needed)

    def set_base(self, nodes: NDArray[np.int32], base: NDArray[np.float32]) -> None:
        """Gives nodes another x⁽⁰⁾; base: (nodes, d)."""
        self.tables.base[nodes] = base
        self.look_at(nodes)

    def look_at(self, nodes: NDArray[np.int32]) -> None:
        """Passes on what changed at these nodes from outside, and calls them dirty."""
        _refresh(self.tables, self._graph.adjacency, self._weights, nodes)

    def apply(self, changes: EdgeChanges) -> None:
        """Takes over what the graph reports as changed, and passes on what exceeds the limits."""
        _apply(self.tables, self._graph.adjacency, self._weights, changes)

    def repair(self, count: int) -> None:
        """Computes the sums of the next `count` nodes anew, round and round: rounding errors do not add up for ever."""
        nodes = (self._next_repair + np.arange(min(count, self._graph.nodes))) % max(1, self._graph.nodes)
        self._next_repair = (self._next_repair + count) % max(1, self._graph.nodes)
        self.resum(nodes.astype(np.int32))

    def resum(self, nodes: NDArray[np.int32]) -> None:
        """Computes the sums and degrees of these nodes anew from their neighbours' ŷ."""
        _resum(self.tables, self._graph.adjacency, nodes)
        self.look_at(nodes)

    def recompute(self) -> None:
        """Computes everything anew from x⁽⁰⁾ and the edges, exactly: whole layers, as LightGCN itself does."""
        everybody = np.arange(self._graph.nodes, dtype=np.int32)
        _recompute(self.tables, self._graph.adjacency, self._weights, everybody)

    def rescale(self, factor: float) -> None:
        """Follows `BipartiteGraph.rescale`: y falls with the root of the weights, S rises with it."""
        root = np.float32(np.sqrt(factor))
        self.tables.sums[:] *= root
        self.tables.given[:] /= root
        for column in (_ROOT, _BEARS, _SLACK, *range(_RHO, self.tables.head.shape[1])):
            self.tables.head[:, column] /= root

    def embeddings(self, nodes: NDArray[np.int32]) -> NDArray[np.float32]:
        """The embeddings z of the nodes: (nodes, d)."""
        z = np.empty((nodes.shape[0], self.dim), np.float32)
        _embed(self.tables, self._weights, nodes, z)
        return z

    def take_dirty(self) -> NDArray[np.int32]:
        """Nodes, new ones among them, that may have turned by more than asked for since they were last taken."""
        count = int(self.tables.moved_count[0])
        nodes = self.tables.moved[:count].copy()
        self.tables.moved_count[0] = 0
        self.tables.dirty[nodes] = 0
        return nodes

    def settle(self, nodes: NDArray[np.int32], z: NDArray[np.float32], published: NDArray[np.float32]) -> None:
        """Measures movement from now on from what was published of the nodes; z, published: (nodes, d)."""
        self.tables.head[nodes, _MOVED] = np.linalg.norm(z - published, axis=1)
        self.tables.head[nodes, _NORM] = np.linalg.norm(published, axis=1)

    def error_bounds(self) -> NDArray[np.float64]:
        """The bound of ‖z̃ - z‖ derived above: (nodes,)."""
        nodes = self._graph.nodes
        node, neighbour, weight, _ = self._graph.edges_of(np.arange(nodes, dtype=np.int32))
        degree = self._graph.adjacency.degree[:nodes]
        inverse = np.divide(1.0, degree, out=np.zeros(nodes), where=degree > 0)
        error, bound = np.zeros(nodes), np.zeros(nodes)
        for layer in range(self.layers):
            limits = self.tables.head[:nodes, _RHO + self.layers + layer]
            sums = np.bincount(node, weights=weight * (limits + error)[neighbour], minlength=nodes).astype(np.float64)
            error = sums * inverse
            bound += self._weights.alphas[layer + 1] * sums * np.sqrt(inverse)
        return bound

    def nbytes(self) -> int:
        """Bytes held by the node tables."""
        return sum(table.nbytes for table in self.tables)


def _checked(alphas: tuple[float, ...]) -> tuple[float, ...]:
    """The layer weights, if they can be used."""
    if not 2 <= len(alphas) <= MAX_LAYERS + 1 or min(alphas) < 0.0 or alphas[-1] == 0.0:
        raise InvalidGraphConfig(
            f"the layer weights are {alphas}; they must be two to {MAX_LAYERS + 1}, none negative, the last not zero"
        )
    return alphas


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _apply(tables: Tables, graph: Adjacency, weights: Weights, changes: EdgeChanges) -> None:
    """Changes the sums at both ends of every changed edge, then passes on what exceeds the limits."""
    _, layers, dim = tables.sums.shape
    touched = np.empty(2 * changes.user.shape[0], np.int32)
    for e in range(changes.user.shape[0]):
        if e + _AHEAD < changes.user.shape[0]:
            for node in (changes.user[e + _AHEAD], changes.item[e + _AHEAD]):
                prefetch(tables.sums, node * layers * dim, layers * dim)
                prefetch(tables.given, node * layers * dim, layers * dim)
        u, v, weight = changes.user[e], changes.item[e], changes.weight[e]
        touched[2 * e], touched[2 * e + 1] = u, v
        for layer in range(layers):
            for k in range(dim):
                tables.sums[u, layer, k] += weight * tables.given[v, layer, k]
            for k in range(dim):
                tables.sums[v, layer, k] += weight * tables.given[u, layer, k]
    _look_at(tables, graph, weights, touched)
    for e in range(changes.user.shape[0]):
        u, v = changes.user[e], changes.item[e]
        tables.head[u, _SLACK] = min(tables.head[u, _SLACK], tables.head[v, _BEARS])
        tables.head[v, _SLACK] = min(tables.head[v, _SLACK], tables.head[u, _BEARS])
    _push(tables, graph, weights, touched)


@njit(cache=True, nogil=True)
def _refresh(tables: Tables, graph: Adjacency, weights: Weights, nodes: NDArray[np.int32]) -> None:
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
            head[_ROOT], head[_SLACK] = 0.0, np.inf
        else:
            head[_ROOT] = 1.0 / np.sqrt(graph.degree[v])
        _combine(tables, weights, v, z)
        square = np.float32(0.0)
        for k in range(dim):
            square += z[k] * z[k]
        head[_NORM] = np.sqrt(square)
        head[_BEARS] = head[_NORM] * np.float32(edges) ** _KAPPA * head[_ROOT]
        head[_MOVED] = np.inf
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
    scale = head[_ROOT] if layer == 0 else head[_ROOT] * head[_ROOT]
    square, residual = np.float32(0.0), np.float32(0.0)
    for k in range(dim):
        y = scale * source[k]
        delta[k] = y - given[k]
        square += y * y
        residual += delta[k] * delta[k]
    if graph.lists.length[u] == 0:
        given[:] = 0.0
        head[_RHO + layer] = head[_RHO + layers + layer] = 0.0
        return 0.0
    limit = weights.epsilon * max(np.sqrt(square), head[_SLACK])
    head[_RHO + layers + layer] = limit
    if residual <= limit * limit:
        head[_RHO + layer] = np.sqrt(residual)
        return 0.0
    for k in range(dim):
        given[k] = scale * source[k]
    head[_RHO + layer] = 0.0
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
        step = weight * np.float32(size) * head[_ROOT]
        head[_MOVED] += alpha * step
        if head[_MOVED] > weights.turn * head[_NORM]:
            _call_dirty(tables, v)
        if deeper < layers:
            head[_RHO + deeper] += step * head[_ROOT]
            if head[_RHO + deeper] > head[_RHO + layers + deeper] and not tables.waiting[v] & bit:
                tables.waiting[v] |= bit
                tables.queue[ahead, deeper & 1] = v
                ahead += 1
        slack = min(slack, head[_BEARS])
    tables.head[u, _SLACK] = slack
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
        _add(z, weights.alphas[layer + 1] * tables.head[v, _ROOT], tables.sums[v, layer])


@njit(cache=True, nogil=True)
def _embed(tables: Tables, weights: Weights, nodes: NDArray[np.int32], z: NDArray[np.float32]) -> None:
    for i in range(nodes.shape[0]):
        _combine(tables, weights, nodes[i], z[i])


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _resum(tables: Tables, graph: Adjacency, nodes: NDArray[np.int32]) -> None:
    """Sums and degrees from the edges."""
    for i in range(nodes.shape[0]):
        v = nodes[i]
        tables.sums[v] = 0.0
        degree = 0.0
        start = graph.lists.start[v]
        for cell in range(start, start + graph.lists.length[v]):
            u, weight = graph.neighbour[cell], graph.weight[cell]
            degree += np.float64(weight)
            for layer in range(tables.sums.shape[1]):
                _add(tables.sums[v, layer], weight, tables.given[u, layer])
        graph.degree[v] = degree


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _recompute(tables: Tables, graph: Adjacency, weights: Weights, nodes: NDArray[np.int32]) -> None:
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
    for v in nodes:
        start = graph.lists.start[v]
        tables.head[v, _SLACK] = np.inf
        for cell in range(start, start + graph.lists.length[v]):
            tables.head[v, _SLACK] = min(tables.head[v, _SLACK], tables.head[graph.neighbour[cell], _BEARS])
    _push(tables, graph, weights, nodes)


@njit(cache=True, nogil=True, fastmath=FLOAT)
def _add(row: NDArray[np.float32], factor: float, other: NDArray[np.float32]) -> None:
    """Adds factor · other to row, both (d,)."""
    single = np.float32(factor)
    for k in range(row.shape[0]):
        row[k] += single * other[k]
