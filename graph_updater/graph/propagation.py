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

**Rounding.** Sums are float32 and change by differences, so rounding errors stay behind. Where a difference is far
larger than what remains (most of a degree taken away; the first edge after many half-lives) the sums are computed anew
at once; everywhere else `repair` does so in turn.

**Looking only where it can matter.** ρ⁽ˡ⁾ᵥ bounds the residual from above without looking at it: a push of δ over an
edge of weight w adds w‖δ‖/dᵥ. Only once ρ exceeds the limit is the residual computed, and pushed if it exceeds the
limit too. In the same way μᵥ bounds how far zᵥ has moved since it was last taken, so that `take_dirty` names only
nodes that can have turned by more than asked for.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.adjacency import EdgeChanges
from graph_updater.graph.bipartite import BipartiteGraph
from graph_updater.graph.lists import grow
from graph_updater.graph.push import (
    LEAST_TOLERANCE,
    MOVED,
    NORM,
    PEAK,
    RHO,
    ROOT,
    TOLERANCE,
    Tables,
    Weights,
    apply_changes,
    embed,
    recompute,
    refresh_and_push,
    resum,
)

MAX_LAYERS: Final = 7


class InvalidLayerWeights(ValueError):
    """Layer weights that LightGCN cannot use; the text says which and what they may be."""


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
            pushed=np.zeros((0, self.layers, dim), np.float32),
            head=np.zeros((0, RHO + 2 * self.layers), np.float32),
            queued=np.zeros(0, np.uint8),
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
        self.refresh(nodes)

    def refresh(self, nodes: NDArray[np.int32]) -> None:
        """Passes on what changed at these nodes from outside, and calls them dirty."""
        refresh_and_push(self.tables, self._graph.adjacency, self._weights, nodes)

    def apply(self, changes: EdgeChanges) -> None:
        """Takes over what the graph reports as changed, and passes on what exceeds the limits."""
        apply_changes(self.tables, self._graph.adjacency, self._weights, changes)

    def repair(self, count: int) -> None:
        """Computes the sums of the next `count` nodes anew, round and round: rounding errors do not add up for ever."""
        nodes = (self._next_repair + np.arange(min(count, self._graph.nodes))) % max(1, self._graph.nodes)
        self._next_repair = (self._next_repair + count) % max(1, self._graph.nodes)
        self.resum(nodes.astype(np.int32))

    def resum(self, nodes: NDArray[np.int32]) -> None:
        """Computes the sums and degrees of these nodes anew from their neighbours' ŷ."""
        resum(self.tables, self._graph.adjacency, nodes)
        self.refresh(nodes)

    def recompute(self) -> None:
        """Computes everything anew from x⁽⁰⁾ and the edges, exactly: whole layers, as LightGCN itself does."""
        everybody = np.arange(self._graph.nodes, dtype=np.int32)
        recompute(self.tables, self._graph.adjacency, self._weights, everybody)

    def rescale(self, factor: float) -> None:
        """Follows `BipartiteGraph.rescale`: y falls with the root of the weights, S rises with it."""
        root = np.float32(np.sqrt(factor))
        self.tables.sums[:] *= root
        self.tables.pushed[:] /= root
        for column in (ROOT, TOLERANCE, LEAST_TOLERANCE, *range(RHO, self.tables.head.shape[1])):
            self.tables.head[:, column] /= root
        self.tables.head[:, PEAK] *= np.float32(factor)

    def embeddings(self, nodes: NDArray[np.int32]) -> NDArray[np.float32]:
        """The embeddings z of the nodes: (nodes, d)."""
        z = np.empty((nodes.shape[0], self.dim), np.float32)
        embed(self.tables, self._weights, nodes, z)
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
    """The layer weights, if they can be used."""
    if not 2 <= len(alphas) <= MAX_LAYERS + 1 or min(alphas) < 0.0 or alphas[-1] == 0.0:
        raise InvalidLayerWeights(
            f"the layer weights are {alphas}; they must be two to {MAX_LAYERS + 1}, none negative, the last not zero"
        )
    return alphas
