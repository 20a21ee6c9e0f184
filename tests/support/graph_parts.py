"""Streams of edges for the engine's tests, and the same graph kept as a plain dictionary to compare with."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from graph_updater.graph.adjacency import EdgeOps
from graph_updater.graph.bipartite import BipartiteGraph
from graph_updater.graph.config import GraphConfig
from graph_updater.graph.propagation import Propagation
from models.lightgcn import both_directions, propagate

USERS, ITEMS, DIM = 6, 8, 5
NODES = USERS + ITEMS

steps = st.lists(
    st.tuples(
        st.integers(0, USERS - 1),
        st.integers(USERS, NODES - 1),
        st.sampled_from([0.0, 0.25, 1.0, 1.0, 3.0]),
        st.integers(0, 400),
    ),
    max_size=60,
)
"""User, item, weight (0 removes), event time: repeated pairs, late and repeated times are all likely."""


def edge_ops(stream):
    """The stream as the engine takes it."""
    user, item, weight, time = zip(*stream, strict=True) if stream else ((), (), (), ())
    return EdgeOps(
        np.array(user, np.int32), np.array(item, np.int32), np.array(weight, np.float32), np.array(time, np.int64)
    )


class Fresh:
    """Graph and propagation together, fed in micro-batches as the state machine does it."""

    def __init__(self, *, epsilon=0.0, alphas=(0.25, 0.25, 0.25, 0.25), seed=0, nodes=NODES, dim=DIM, **config):
        self.alphas = alphas
        self.graph = BipartiteGraph(GraphConfig(epsilon=epsilon, **{"degree_cap": 0, **config}))
        self.propagation = Propagation(self.graph, dim, alphas, epsilon=epsilon, min_cosine=0.999)
        self.graph.add_nodes(nodes)
        self.propagation.add_nodes(nodes)
        self.base = np.random.default_rng(seed).normal(size=(nodes, dim)).astype(np.float32)
        self.propagation.set_base(np.arange(nodes, dtype=np.int32), self.base)

    def feed(self, stream, batch=7):
        """Applies the stream, `batch` operations at a time."""
        for begin in range(0, len(stream), batch):
            self.change(edge_ops(stream[begin : begin + batch]))

    def expire(self, now_ms):
        """Lets time pass."""
        for removals in self.graph.expired(now_ms):
            self.change(removals)

    def change(self, ops):
        """Applies one micro-batch."""
        factor = self.graph.rescale_factor(int(ops.time.max()))
        if factor != 1.0:
            self.graph.rescale(factor)
            self.propagation.rescale(factor)
        self.propagation.apply(self.graph.apply(ops))

    def embeddings(self):
        """All embeddings as the engine has them."""
        return self.propagation.embeddings(np.arange(self.graph.nodes, dtype=np.int32))

    def edges(self):
        """The edges as a dictionary: pair to weight and time."""
        node, neighbour, weight, time = self.graph.edges_of(np.arange(self.graph.nodes, dtype=np.int32))
        rows = zip(node.tolist(), neighbour.tolist(), weight.tolist(), time.tolist(), strict=True)
        return {(one, other): (size, when) for one, other, size, when in rows}


def reference(edges, base, alphas):
    """LGConv's embeddings in double precision; edges: pair to weight."""
    users, items = torch.tensor(list(edges), dtype=torch.long).reshape(-1, 2).T
    weights = torch.tensor(list(edges.values()), dtype=torch.float64)
    return propagate(torch.from_numpy(base).double(), both_directions(users, items), weights.repeat(2), alphas).numpy()


def epsilon_bounds(edges, base, alphas, epsilon):
    """The error of z that a tolerance of epsilon allows each node: (nodes,).

    From the definition in `graph_updater.graph.propagation` and exact values in double precision; nothing of it is
    taken from the implementation. Edges: pair to weight.
    """
    nodes = len(base)
    adjacency = np.zeros((nodes, nodes))
    for (user, item), weight in edges.items():
        adjacency[user, item] = adjacency[item, user] = weight
    degree, count = adjacency.sum(1), (adjacency > 0).sum(1)
    root = np.divide(1.0, np.sqrt(degree), out=np.zeros(nodes), where=degree > 0)
    tolerance = np.linalg.norm(reference(edges, base, alphas), axis=1) * count**0.4 * root
    least = np.where(adjacency > 0, tolerance, np.inf).min(1)
    least[degree == 0] = 0.0
    x, error, bound = base.astype(float), np.zeros(nodes), np.zeros(nodes)
    for alpha in alphas[1:]:
        y = x * root[:, None]
        limit = epsilon * np.maximum(np.linalg.norm(y, axis=1), least)
        sums = adjacency @ (limit + error)
        error = sums * root**2
        bound += alpha * sums * root
        x = (adjacency @ y) * root[:, None]
    return bound


class PlainGraph:
    """What the graph should hold: of one pair's interactions the latest, of those at one time the heaviest."""

    def __init__(self):
        self.edges = {}

    def feed(self, stream):
        """Applies operations as `BipartiteGraph.apply` documents them."""
        for user, item, weight, time in stream:
            known = self.edges.get((user, item))
            if weight == 0.0:
                if known and known[0] <= time:
                    del self.edges[user, item]
            elif known is None or (time, weight) > known:
                self.edges[user, item] = (time, weight)

    def weights(self, keep=lambda _time: True, size=lambda weight, _time: weight):
        """Pair to weight, of the edges to keep by their time, each as large as `size` says."""
        return {pair: size(weight, time) for pair, (time, weight) in self.edges.items() if keep(time)}
