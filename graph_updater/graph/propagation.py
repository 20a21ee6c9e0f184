"""LightGCN embeddings kept fresh per edge: residual push, layer by layer within a micro-batch, with a bound.

**What is kept.** LightGCN (He et al., SIGIR 2020) propagates x⁽ˡ⁺¹⁾ = D^-½ A D^-½ x⁽ˡ⁾ and answers z = Σ αₗ x⁽ˡ⁾; A
holds the edges' weights w, D their sums d per node. With y⁽ˡ⁾ = D^-½ x⁽ˡ⁾ and S⁽ˡ⁾ᵥ = Σᵤ w_uv y⁽ˡ⁾ᵤ,

    y⁽⁰⁾ᵥ = x⁽⁰⁾ᵥ / √dᵥ        y⁽ˡ⁺¹⁾ᵥ = S⁽ˡ⁾ᵥ / dᵥ        zᵥ = α₀ x⁽⁰⁾ᵥ + Σₗ αₗ₊₁ S⁽ˡ⁾ᵥ / √dᵥ

Kept per node and layer 0 … L-1: the sum S and ŷ, the value of y that the neighbours' sums contain, so that
S⁽ˡ⁾ᵥ = Σᵤ w_uv ŷ⁽ˡ⁾ᵤ at all times. A changed edge changes two sums and two degrees. Then, for l = 0 … L-1, every node
whose residual ‖y⁽ˡ⁾ - ŷ⁽ˡ⁾‖ exceeds its limit t⁽ˡ⁾ adds the difference to its neighbours' sums and sets ŷ = y.

**The bound.** Let ỹ be y as the kept sums give it, and e⁽ˡ⁾ᵥ a bound of its error: e⁽⁰⁾ᵥ = 0. After a micro-batch every
residual is within its limit, so by the triangle inequality, whatever the limits are,

    b⁽ˡ⁾ᵥ = Σᵤ w_uv (t⁽ˡ⁾ᵤ + e⁽ˡ⁾ᵤ)        e⁽ˡ⁺¹⁾ᵥ = b⁽ˡ⁾ᵥ / dᵥ        ‖z̃ᵥ - zᵥ‖ ≤ Σₗ αₗ₊₁ b⁽ˡ⁾ᵥ / √dᵥ

with b⁽ˡ⁾ᵥ bounding the error of S⁽ˡ⁾ᵥ. `error_bounds` computes the last for every node. With ε = 0 all limits are 0
and embeddings are exact up to rounding.

**The limits.** t⁽ˡ⁾ᵤ = ε max(‖ỹ⁽ˡ⁾ᵤ‖, sᵤ), where sᵤ is the tolerance of the most sensitive neighbour: the least of
‖zᵥ‖ nᵥ^κ / √dᵥ over the neighbours v of u, which have nᵥ edges. Errors of size t from nᵥ neighbours add up in zᵥ to
t √(Σw²/dᵥ) ≈ t √(dᵥ/nᵥ) if their directions are unrelated, and to t √dᵥ if they are all the same: with κ = ½ or 0
that is ε relative to ‖zᵥ‖. Real ones lie nearer to the former; κ = 0.4 spends the fewest pushes for the smallest cosine
over all nodes. So a hub, whose share in any one neighbour is small, does not push to thousands each time it has changed
by a few per cent; and where neighbours are small (a new user without x⁽⁰⁾) the limit is relative to y itself.

Tolerances are those of the last look at a node. Where a new edge outweighs all that a node had, as the first one after
several half-lives does, they are computed again once the push has replaced the old ŷ.

**Rounding.** Sums are float32 and change by differences, so rounding errors stay behind. Where a difference is far
larger than what remains (most of a degree removed; the first edge after many half-lives) the sums are recomputed at
once; everywhere else `repair` does so in turn.

**Computing residuals only where it can matter.** ρ⁽ˡ⁾ᵥ is an upper bound of the residual: a push of δ over an edge of
weight w adds w‖δ‖/dᵥ. The residual is computed only once ρ exceeds the limit, and pushed if it exceeds the limit too.
In the same way μᵥ bounds how far zᵥ has moved since it was published, so that `take_dirty` returns only nodes that may
have turned further than `min_cosine`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.adjacency import EdgeChanges
from graph_updater.graph.bipartite import BipartiteGraph
from graph_updater.graph.node_tables import (
    IS_DIRTY,
    LEAST_TOLERANCE,
    MOVED,
    NORM,
    PEAK,
    RHO,
    ROOT,
    TOLERANCE,
    Weights,
    empty_tables,
)
from graph_updater.graph.push import apply_changes, embed, recompute, refresh_and_push, resum
from runtime.arrays import grow

MAX_LAYERS: Final = 7


class InvalidLayerWeights(ValueError):
    """Layer weights that LightGCN cannot use; the text says which and what they may be."""


class Propagation:
    """Embeddings of all nodes of a graph.

    Args:
        graph: the graph; every change to it must be passed to `apply`.
        dim: dimension of the embeddings.
        alphas: the layer weights α₀ … α_L, at least two, none negative.
        epsilon: see above; 0 is exact.
        min_cosine: a node is dirty once its z may have turned further than this since it was published.
        one_of_several: whether the items have neighbours in other shards; see `graph_updater.graph.sharing`.
    """

    def __init__(
        self,
        graph: BipartiteGraph,
        dim: int,
        alphas: tuple[float, ...],
        *,
        epsilon: float,
        min_cosine: float,
        one_of_several: bool = False,
    ) -> None:
        self._graph = graph
        self.dim = dim
        self.epsilon = epsilon
        self.one_of_several = one_of_several
        self.layers = len(alphas) - 1
        self._weights = Weights(
            alphas=np.array(_checked(alphas), np.float32),
            epsilon=np.float32(epsilon),
            turn=np.float32(np.sqrt(1.0 - min_cosine**2)),
        )
        self.tables = empty_tables(self.layers, dim, one_of_several=one_of_several)
        self._next_repair = 0

    def add_nodes(self, needed: int) -> None:
        """Grows to `needed` nodes; new ones have x⁽⁰⁾ = 0 and no edges."""
        for table in self.tables[:-1]:
            grow(table, needed)

    def set_base(self, nodes: NDArray[np.int32], base: NDArray[np.float32]) -> None:
        """Sets x⁽⁰⁾ of nodes; base: (nodes, d)."""
        self.tables.base[nodes] = base
        self.refresh(nodes)

    def refresh(self, nodes: NDArray[np.int32]) -> None:
        """Marks nodes changed from outside as dirty and pushes their residuals."""
        refresh_and_push(self.tables, self._graph.adjacency, self._weights, nodes)

    def apply(self, changes: EdgeChanges) -> None:
        """Follows changes of the graph and pushes the residuals that exceed their limits."""
        apply_changes(self.tables, self._graph.adjacency, self._weights, changes)

    def repair(self, count: int) -> None:
        """Recomputes the sums of the next `count` nodes, in turn, so that rounding errors do not add up."""
        nodes = (self._next_repair + np.arange(min(count, self._graph.nodes))) % max(1, self._graph.nodes)
        self._next_repair = (self._next_repair + count) % max(1, self._graph.nodes)
        self.resum(nodes.astype(np.int32))

    def resum(self, nodes: NDArray[np.int32]) -> None:
        """Recomputes the sums and degrees of these nodes from their neighbours' ŷ."""
        resum(self.tables, self._graph.adjacency, nodes)
        self.refresh(nodes)

    def restore_finite(self) -> None:
        """Computes anew, from their neighbours, all nodes that are not finite. Looks at every node.

        A ŷ that is not finite becomes 0, and all sums that contain it are computed again; then pushing completes them.
        """
        nodes, tables = self._graph.nodes, self.tables
        with np.errstate(over="ignore", invalid="ignore"):
            sums = tables.sums[:nodes].sum(axis=(1, 2)) + self._graph.adjacency.degree[:nodes]
            pushed = tables.pushed[:nodes, : self.layers].sum(axis=(1, 2))
        bad = np.flatnonzero(~np.isfinite(pushed)).astype(np.int32)
        tables.pushed[bad, : self.layers] = 0.0
        around = self._graph.edges_of(bad).neighbour
        anew = np.unique(np.concatenate([np.flatnonzero(~np.isfinite(sums)).astype(np.int32), bad, around]))
        tables.head[anew, : RHO + 2 * self.layers] = 0.0
        self.resum(anew)

    def recompute(self) -> None:
        """Recomputes everything exactly from x⁽⁰⁾ and the edges, layer by layer as LightGCN does."""
        everybody = np.arange(self._graph.nodes, dtype=np.int32)
        recompute(self.tables, self._graph.adjacency, self._weights, everybody)

    def rescale(self, factor: float) -> None:
        """Follows `BipartiteGraph.rescale`: S scales with the root of the factor, y and the tolerances inversely."""
        root, layers = np.float32(np.sqrt(factor)), self.layers
        self.tables.sums[:] *= root
        self.tables.pushed[:, :layers] /= root
        self.tables.pushed[:, layers:] *= root  # what other shards' parts add up to, if there are any
        for column in (ROOT, TOLERANCE, LEAST_TOLERANCE, *range(RHO, RHO + 2 * layers)):
            self.tables.head[:, column] /= root
        for column in (PEAK, RHO + 2 * layers)[: 1 + self.one_of_several]:
            self.tables.head[:, column] *= np.float32(factor)

    def embeddings(self, nodes: NDArray[np.int32]) -> NDArray[np.float32]:
        """The embeddings z of the nodes: (nodes, d)."""
        z = np.empty((nodes.shape[0], self.dim), np.float32)
        embed(self.tables, self._weights, nodes, z)
        return z

    def take_dirty(self) -> NDArray[np.int32]:
        """New nodes, and nodes that may have turned further than `min_cosine` since they were published."""
        count = int(self.tables.moved_count[0])
        nodes = self.tables.moved[:count].copy()
        self.tables.moved_count[0] = 0
        self.tables.dirty[nodes] &= ~np.uint8(IS_DIRTY)
        return nodes

    def settle(self, nodes: NDArray[np.int32], z: NDArray[np.float32], published: NDArray[np.float32]) -> None:
        """Measures the nodes' movement from their published embeddings from now on; z, published: (nodes, d)."""
        self.tables.head[nodes, MOVED] = np.linalg.norm(z - published, axis=1)
        self.tables.head[nodes, NORM] = np.linalg.norm(published, axis=1)

    def error_bounds(self) -> NDArray[np.float64]:
        """The bound of ‖z̃ - z‖ derived above: (nodes,)."""
        nodes = self._graph.nodes
        node, neighbour, weight, _ = self._graph.edges_of(np.arange(nodes, dtype=np.int32))
        degree = self._graph.adjacency.degree[:nodes]
        inverse = np.divide(1.0, degree, out=np.zeros(nodes), where=degree > 0)
        error, bound = np.zeros(nodes), np.zeros(nodes)
        for layer in range(self.layers):
            limits = self.tables.head[:nodes, RHO + self.layers + layer]
            sums = np.bincount(node, weights=weight * (limits + error)[neighbour], minlength=nodes).astype(np.float64)
            error = sums * inverse
            bound += self._weights.alphas[layer + 1] * sums * np.sqrt(inverse)
        return bound

    def nbytes(self) -> int:
        """Bytes held by the node tables."""
        return sum(table.nbytes for table in self.tables)


def _checked(alphas: tuple[float, ...]) -> tuple[float, ...]:
    """The layer weights, if valid."""
    if not 2 <= len(alphas) <= MAX_LAYERS + 1 or min(alphas) < 0.0 or alphas[-1] == 0.0:
        raise InvalidLayerWeights(
            f"the layer weights are {alphas}; they must be two to {MAX_LAYERS + 1}, none negative, the last not zero"
        )
    return alphas
