"""The reference propagation against matrices written out."""

import torch

from models.lightgcn import both_directions, propagate


def test_propagation_is_the_normalised_adjacency_applied_once_per_layer():
    """The embeddings equal Σ αₗ (D^-½ A D^-½)ˡ x⁽⁰⁾ written out with dense matrices, edge weights included."""
    users, items = torch.tensor([0, 0, 1, 2]), torch.tensor([3, 4, 4, 3])
    weights = torch.tensor([1.0, 0.5, 2.0, 3.0])
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    alphas = (0.4, 0.3, 0.2, 0.1)

    z = propagate(base, both_directions(users, items), weights.repeat(2), alphas)

    adjacency = torch.zeros(6, 6)
    adjacency[users, items] = weights
    adjacency = adjacency + adjacency.T
    root = adjacency.sum(1).rsqrt().nan_to_num(posinf=0.0)
    step = root[:, None] * adjacency * root[None, :]
    expected = sum(alpha * torch.linalg.matrix_power(step, layer) @ base for layer, alpha in enumerate(alphas))
    torch.testing.assert_close(z, expected)


def test_a_node_without_edges_keeps_its_share_of_its_base_embedding():
    """Propagation brings nothing to a node without edges: z = α₀ x⁽⁰⁾."""
    base = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    z = propagate(base, both_directions(torch.tensor([0]), torch.tensor([1])), None, (0.5, 0.5))
    torch.testing.assert_close(z[2], 0.5 * base[2])
