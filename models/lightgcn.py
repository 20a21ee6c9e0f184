"""LightGCN's propagation over a whole graph by torch-geometric: used by training, and the reference for the updater.

He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.nn import LGConv


def both_directions(users: Tensor, items: Tensor) -> Tensor:
    """The edge index (2, 2 · edges) of an undirected bipartite graph, from the user and the item of each edge."""
    return torch.stack([torch.cat([users, items]), torch.cat([items, users])])


def propagate(base: Tensor, edge_index: Tensor, edge_weight: Tensor | None, alphas: Sequence[float]) -> Tensor:
    """Embeddings z = Σ αₗ x⁽ˡ⁾ with x⁽ˡ⁺¹⁾ = D^-½ A D^-½ x⁽ˡ⁾.

    Args:
        base: x⁽⁰⁾, (nodes, d).
        edge_index: both directions of every edge, (2, edges).
        edge_weight: the entries of A, (edges,); None for 1 everywhere.
        alphas: α₀ … α_L.

    Returns:
        z, (nodes, d).
    """
    layer = LGConv(normalize=True)
    x = base
    z = alphas[0] * x
    for alpha in alphas[1:]:
        x = layer(x, edge_index, edge_weight)  # (nodes, d)
        z = z + alpha * x
    return z
