"""Graphs for `benchmarks.graph`, the updater's graph engine on them, and its error against LightGCN itself."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from graph_updater.graph.adjacency import EdgeOps
from graph_updater.graph.bipartite import BipartiteGraph
from graph_updater.graph.config import GraphConfig
from graph_updater.graph.propagation import Propagation
from models.lightgcn import propagate
from runtime.errors import ExitstreamError

DIM = 64
ALPHAS = (0.25, 0.25, 0.25, 0.25)
BATCH = 256
MIN_COSINE = 0.999


class MissingEdges(ExitstreamError):
    """The folder has no list of edges."""


@dataclass(frozen=True)
class Edges:
    """A bipartite graph: users are nodes 0 … users-1, items those behind; base: x⁽⁰⁾ of all, (nodes, 64)."""

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    base: NDArray[np.float32]

    def shuffled(self, seed: int = 0) -> Edges:
        """The same edges in random order."""
        order = np.random.default_rng(seed).permutation(self.user.size)
        return Edges(self.user[order], self.item[order], self.base)


@dataclass(frozen=True)
class Errors:
    """Errors of the embeddings over all nodes."""

    max_relative: float
    mean_relative: float
    min_cosine: float
    within_bound: bool


def read_edges(folder: Path) -> Edges:
    """`train.txt` of LightGCN's data sets: a user and the user's items per line.

    Raises:
        MissingEdges: there is no such file.
    """
    path = folder / "train.txt"
    if not path.exists():
        raise MissingEdges(f"{path} does not exist; --data takes a folder of LightGCN's published splits")
    rows = [np.array(line.split(), np.int32) for line in path.read_text().splitlines()]
    user = np.concatenate([np.full(row.size - 1, row[0]) for row in rows])
    item = np.concatenate([row[1:] for row in rows])
    return _with_base(user, item)


def power_law_edges(users: int, items: int, edges: int, seed: int = 0) -> Edges:
    """A synthetic graph; degrees on both sides follow a power law: rank to the power -0.7."""
    random = np.random.default_rng(seed)
    ends = [random.choice(count, 2 * edges, p=_power_law(count)) for count in (users, items)]
    pairs = np.unique(ends[0].astype(np.int64) * items + ends[1])
    user, item = np.divmod(random.permutation(pairs)[:edges], items)
    return _with_base(user.astype(np.int32), item.astype(np.int32))


class Engine:
    """Graph and propagation as the state machine uses them, without ids and histories.

    Args:
        edges: the nodes and their x⁽⁰⁾.
        epsilon: see `graph_updater.graph.propagation`.
    """

    def __init__(self, edges: Edges, epsilon: float) -> None:
        nodes = edges.base.shape[0]
        self.base = edges.base
        self.graph = BipartiteGraph(GraphConfig(epsilon=epsilon, degree_cap=0))
        self.propagation = Propagation(self.graph, DIM, ALPHAS, epsilon=epsilon, min_cosine=MIN_COSINE)
        self.graph.add_nodes(nodes)
        self.propagation.add_nodes(nodes)
        self.propagation.set_base(np.arange(nodes, dtype=np.int32), edges.base)

    def feed(self, edges: Edges, begin: int, end: int, batch: int = BATCH) -> float:
        """Insert edges `begin` to `end` in micro-batches; returns seconds of processor time."""
        started = time.thread_time()
        for at in range(begin, end, batch):
            part = slice(at, min(end, at + batch))
            times = np.arange(part.start, part.stop)
            self.change(EdgeOps(edges.user[part], edges.item[part], np.ones(times.size, np.float32), times))
        return time.thread_time() - started

    def fill(self, edges: Edges, end: int) -> None:
        """Insert the first edges at once and compute all embeddings exactly."""
        times = np.arange(end)
        self.graph.apply(EdgeOps(edges.user[:end], edges.item[:end], np.ones(end, np.float32), times))
        self.propagation.recompute()

    def change(self, ops: EdgeOps) -> None:
        """Apply one micro-batch."""
        self.propagation.apply(self.graph.apply(ops))

    def embeddings(self) -> NDArray[np.float32]:
        """All embeddings."""
        return self.propagation.embeddings(np.arange(self.graph.nodes, dtype=np.int32))

    def errors(self) -> Errors:
        """Errors against LightGCN in double precision over the edges that the graph has now."""
        exact = propagate(torch.from_numpy(self.base).double(), edge_index(self), None, ALPHAS).numpy()
        z = self.embeddings().astype(np.float64)
        size = np.linalg.norm(exact, axis=1)
        error = np.linalg.norm(z - exact, axis=1)
        cosine = (z * exact).sum(1) / (size * np.linalg.norm(z, axis=1))
        return Errors(
            max_relative=float((error / size).max()),
            mean_relative=float((error / size).mean()),
            min_cosine=float(cosine.min()),
            within_bound=bool((error <= self.propagation.error_bounds() + 1e-5 * size).all()),
        )


def edge_index(engine: Engine) -> torch.Tensor:
    """Both directions of every edge of the graph, as torch-geometric takes them: (2, 2 · edges)."""
    node, neighbour, _, _ = engine.graph.edges_of(np.arange(engine.graph.nodes, dtype=np.int32))
    return torch.from_numpy(np.stack([node, neighbour])).long()


def _with_base(user: NDArray[np.int32], item: NDArray[np.int32]) -> Edges:
    """Number items after users; x⁽⁰⁾ is random, as at the start of LightGCN's training."""
    item = item + np.int32(user.max() + 1)
    base = np.random.default_rng(0).normal(0.0, 0.1, (int(item.max()) + 1, DIM)).astype(np.float32)
    return Edges(user, item, base)


def _power_law(count: int) -> NDArray[np.float64]:
    shares = np.arange(1.0, count + 1.0) ** -0.7
    return np.asarray(shares / shares.sum())
