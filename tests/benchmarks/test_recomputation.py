"""What an update is compared with is LightGCN, whichever library computes it."""

import numpy as np
import pytest
import torch

from benchmarks import recomputation
from benchmarks.graph_workloads import ALPHAS, Engine, edge_index, power_law_edges
from models.lightgcn import propagate


@pytest.mark.parametrize("library", ["_scipy", "_torch_geometric"])
def test_both_libraries_compute_lightgcn(library):
    """Over the normalised matrix they give the embeddings that LightGCN's own definition gives."""
    edges = power_law_edges(60, 40, 300)
    engine = Engine(edges, epsilon=0.0)
    engine.fill(edges, edges.user.size)
    exact = propagate(torch.from_numpy(engine.base), edge_index(engine), None, ALPHAS).numpy()

    z = getattr(recomputation, library)(recomputation.normalised(engine), engine.base)()

    np.testing.assert_allclose(z, exact, atol=1e-7)
