"""One whole recomputation of LightGCN's embeddings by SciPy and by torch-geometric: what an update is compared with.

Both get their matrix normalised and in CSR form beforehand, and run on one thread: only the products are timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch_geometric.nn import LGConv

from benchmarks.graph_workloads import ALPHAS, Engine

TRIES: Final = 3
"""The quickest counts."""


def recompute_seconds(engine: Engine) -> dict[str, float]:
    """Seconds of processor time by library, for the graph as the engine holds it now."""
    matrix = normalised(engine)
    ways = {"SciPy": _scipy(matrix, engine.base), "torch-geometric": _torch_geometric(matrix, engine.base)}
    return {library: min(_timed(way) for _ in range(TRIES)) for library, way in ways.items()}


def normalised(engine: Engine) -> Any:  # noqa: ANN401 - SciPy carries no types here
    """D^-½ A D^-½ of the engine's graph, (nodes, nodes) in CSR form, float32."""
    nodes = engine.graph.nodes
    node, neighbour, _, _ = engine.graph.edges_of(np.arange(nodes, dtype=np.int32))
    degree = np.bincount(node, minlength=nodes).astype(np.float32)
    weight = 1.0 / np.sqrt(degree[node] * degree[neighbour])
    return csr_array((weight.astype(np.float32), (node, neighbour)), shape=(nodes, nodes))


def _scipy(matrix: Any, base: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:  # noqa: ANN401 - as above
    def run() -> NDArray[np.float32]:
        x, z = base, ALPHAS[0] * base
        for alpha in ALPHAS[1:]:
            x = matrix @ x  # (nodes, d)
            z = z + np.float32(alpha) * x
        return np.asarray(z)

    return run


def _torch_geometric(matrix: Any, base: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:  # noqa: ANN401 - as above
    layer = LGConv(normalize=False)
    adjacency = torch.sparse_csr_tensor(
        torch.from_numpy(matrix.indptr.astype(np.int64)),
        torch.from_numpy(matrix.indices.astype(np.int64)),
        torch.from_numpy(matrix.data),
        matrix.shape,
        check_invariants=False,
    )
    start = torch.from_numpy(base)

    @torch.inference_mode()
    def run() -> NDArray[np.float32]:
        x, z = start, ALPHAS[0] * start
        for alpha in ALPHAS[1:]:
            x = layer(x, adjacency)  # (nodes, d)
            z = z + alpha * x
        return np.asarray(z)

    return run


def _timed(run: Callable[[], object]) -> float:
    started = time.thread_time()
    run()
    return time.thread_time() - started
