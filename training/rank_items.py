"""Fits LightGCN's base embeddings to clicks alone, so that each user's items rank before all others.

For logs without impressions: who saw an item and did not click is not known. READ FIRST: `fit_to_rank` names each step.

* Users have no base embedding (x⁽⁰⁾ = 0), as everywhere here: what is fitted is one per item.
* Start: the leading singular vectors of D^-½ A D^-½, which LightGCN's propagation amplifies (Peng et al., "SVD-GCN",
  CIKM 2022; Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021).
* Loss: a softmax over items for some hundreds of users a step. The denominator is a sum over the items of these users
  and others drawn at random, each divided by its probability to be among them (Bengio and Senécal, 2008), so it stands
  for the sum over the whole catalogue.
* A user's embedding is scaled to length 1: one temperature for short and long histories. No ranking depends on it.
* Leave one out: a right answer is scored without what this very click adds to the user's embedding. A user would
  otherwise learn to find what they are made of, and a candidate to be ranked is no part of them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn
from torch.nn import functional

Floats = NDArray[np.float32]
_LOWEST_RATE: Final = 0.02
"""The learning rate falls linearly to this share of its start."""


@dataclass(frozen=True, slots=True)
class RankingOptions:
    """Hyperparameters."""

    dim: int = 64
    layers: int = 4
    steps: int = 200
    minutes: float = 90.0
    """Training ends after this time, or after `steps`, whichever is first; the learning rate falls accordingly."""
    users_per_step: int = 2_048
    more_items_per_step: int = 2_048
    """Drawn at random from the catalogue, besides the items of the step's users."""
    learning_rate: float = 5e-3
    temperature: float = 0.025
    regularisation: float = 0.0
    """Weight of the mean squared length of the base embeddings in the loss."""
    initial_length: float = 0.1
    """Mean length of the base embeddings at the start."""
    seed: int = 0


class Fitted(NamedTuple):
    """What a training found.

    Attributes:
        alphas: weight of each propagation layer.
        base: (items, dim) base embeddings.
        steps: number of steps taken.
    """

    alphas: list[float]
    base: Floats
    steps: int


def fit_to_rank(clicks: csr_matrix, options: RankingOptions, on_step: Callable[[], None] = lambda: None) -> Fitted:
    """Base embeddings whose propagation over `clicks` ranks each user's items before all others.

    Args:
        clicks: (users, items), nonzero where the user clicked the item.
        options: hyperparameters; the same ones give the same embeddings as long as `minutes` is not what ends it.
        on_step: called after each step.
    """
    random = np.random.default_rng(options.seed)
    graph = Graph(clicks, [1 / (options.layers + 1)] * (options.layers + 1))
    base = nn.Parameter(torch.from_numpy(_spectral_start(graph.edges, options, random)))
    optimiser = torch.optim.Adam([base], lr=options.learning_rate, betas=(0.9, 0.99))
    started_s, step, progress = time.monotonic(), 0, 0.0
    while progress < 1:
        optimiser.param_groups[0]["lr"] = options.learning_rate * max(_LOWEST_RATE, 1 - progress)
        users = random.choice(graph.active_users, min(options.users_per_step, len(graph.active_users)), replace=False)
        loss = _loss(base, graph, users, options, random)
        optimiser.zero_grad()
        torch.autograd.backward(loss + options.regularisation * base.square().sum(1).mean())
        optimiser.step()
        step += 1
        progress = max(step / options.steps, (time.monotonic() - started_s) / (60 * options.minutes))
        on_step()
    return Fitted(graph.alphas, base.detach().numpy(), step)


class Graph:
    """Clicks as a bipartite graph, and propagation that computes users only where they are asked for.

    Args:
        clicks: (users, items), nonzero where the user clicked the item.
        alphas: weight of each layer in z.
    """

    def __init__(self, clicks: csr_matrix, alphas: Sequence[float]) -> None:
        self.alphas = list(alphas)
        clicked = csr_matrix(clicks != 0)
        self.degrees = np.diff(clicked.indptr), np.bincount(clicked.indices, minlength=clicked.shape[1])
        by_user, by_item = (diags(1 / np.sqrt(np.maximum(degree, 1))) for degree in self.degrees)
        self.edges = csr_matrix(by_user @ clicked @ by_item, dtype=np.float32)
        """D^-½ A D^-½, (users, items)."""
        self.active_users = np.flatnonzero(self.degrees[0])
        self._product = _Sparse(self.edges)

    def propagate(self, base: Tensor) -> tuple[Tensor, Tensor]:
        """The items' z (items, dim), and what the users' z are sums of: z = edges @ it, (items, dim).

        Layers alternate: a user's odd layers are made of the items' even ones, and nothing else is there, because
        users' base embeddings are 0.
        """
        layer = base  # (items, dim), an even one
        items, for_users = self.alphas[0] * base, torch.zeros_like(base)
        for depth, alpha in enumerate(self.alphas[1:], start=1):
            if depth % 2:
                for_users = for_users + alpha * layer
            else:
                layer = self._product.transposed.times(self._product.times(layer))
                items = items + alpha * layer
        return items, for_users

    def embeddings(self, base: Floats) -> tuple[Floats, Floats]:
        """All users' and all items' z."""
        items, for_users = self.propagate(torch.from_numpy(base))
        return self._product.times(for_users).numpy(), items.numpy()


class _Sparse:
    """A constant sparse matrix, whose products with dense ones can be differentiated."""

    def __init__(self, matrix: csr_matrix, transposed: _Sparse | None = None) -> None:
        starts, columns = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
        values, size = torch.from_numpy(matrix.data), list(matrix.shape)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            self.tensor = torch.sparse_csr_tensor(starts, columns, values, size, check_invariants=False)
        self.transposed = transposed or _Sparse(matrix.T.tocsr(), self)

    def times(self, dense: Tensor) -> Tensor:
        product: Tensor = _Product.apply(self, dense)  # type: ignore[no-untyped-call]
        return product


class _Product(torch.autograd.Function):
    """PyTorch transposes a CSR matrix in every backward pass; here its transpose is kept."""

    @staticmethod
    def forward(ctx: Any, matrix: _Sparse, dense: Tensor) -> Tensor:  # noqa: ANN401 - PyTorch's context has no type
        ctx.transposed = matrix.transposed
        return torch.mm(matrix.tensor, dense)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:  # noqa: ANN401 - as above
        return None, torch.mm(ctx.transposed.tensor, gradient.contiguous())


def _spectral_start(edges: csr_matrix, options: RankingOptions, random: np.random.Generator) -> Floats:
    """(items, dim): right singular vectors, scaled such that the items' z come out as if scaled by singular values."""
    start = random.normal(scale=1e-3, size=(edges.shape[1], options.dim))
    rank = min(options.dim, *edges.shape)
    _, values, vectors = randomized_svd(edges, rank, n_oversamples=32, n_iter=6, random_state=options.seed)
    start[:, :rank] += vectors.T * values / (1 + values**2)
    scaled: Floats = (start * (options.initial_length / np.linalg.norm(start, axis=1).mean())).astype(np.float32)
    return scaled


def _loss(
    base: Tensor, graph: Graph, users: NDArray[np.int64], options: RankingOptions, random: np.random.Generator
) -> Tensor:
    """Mean over these users' clicks of -log softmax."""
    own = graph.edges[users]
    among, correction = _drawn(own, graph, options, random)
    items, for_users = graph.propagate(base)
    sums = _Sparse(own).times(for_users)  # (users, dim)
    rows = torch.from_numpy(np.repeat(np.arange(len(users)), np.diff(own.indptr)))
    right = torch.from_numpy(own.indices.astype(np.int64))
    # The length stays that of the whole sum, and is a constant here: exact removal ranked a little worse.
    scale = torch.from_numpy(own.data) / (sums.detach().norm(dim=1).clamp_min(1e-12)[rows] * options.temperature)
    loss: Tensor = _SampledSoftmax.apply(  # type: ignore[no-untyped-call]
        functional.normalize(sums, dim=1) / options.temperature,
        items[torch.from_numpy(among)],
        torch.from_numpy(correction),
        rows,
        torch.from_numpy(np.searchsorted(among, own.indices)),
        (for_users[right] * items[right]).sum(dim=1) * scale,
    )
    return loss


def _drawn(
    own: csr_matrix, graph: Graph, options: RankingOptions, random: np.random.Generator
) -> tuple[NDArray[np.int64], Floats]:
    """The items in the step's denominator, ascending: those of its users and some more; and the logarithm of one over
    each one's probability to be among them, for users and items drawn at random.
    """
    users, catalogue = own.shape
    more = min(options.more_items_per_step, catalogue)
    among = np.union1d(own.indices, random.choice(catalogue, more, replace=False))
    by_none = np.power(1 - users / len(graph.active_users), graph.degrees[1][among])
    return among, -np.log1p(-(1 - more / catalogue) * by_none).astype(np.float32)


class _SampledSoftmax(torch.autograd.Function):
    """Cross-entropy with several right answers per row; the gradient is made in place of the logits, the largest array.

    Inputs are (users, dim), (items, dim), a correction per item's logit (items,), row and column of each right answer,
    and what is left out of each one's logit.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - PyTorch's context has no type
        users: Tensor,
        items: Tensor,
        correction: Tensor,
        rows: Tensor,
        columns: Tensor,
        left_out: Tensor,
    ) -> Tensor:
        logits = torch.addmm(correction[None], users, items.T)  # (users, items)
        logits[rows, columns] -= left_out
        right = (logits[rows, columns] - correction[columns]).mean()
        highest = logits.max(dim=1, keepdim=True).values
        shares = logits.sub_(highest).exp_()
        sums = shares.sum(dim=1, keepdim=True)
        weights = torch.bincount(rows, minlength=len(users)).float()[:, None] / len(rows)  # (users, 1)
        gradient = shares.mul_(weights / sums)
        gradient[rows, columns] -= 1 / len(rows)
        ctx.save_for_backward(gradient @ items, gradient.T @ users, -gradient[rows, columns])
        return (weights * (sums.log() + highest)).sum() - right

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None, Tensor]:  # noqa: ANN401 - as above
        users, items, left_out = ctx.saved_tensors
        return gradient * users, gradient * items, None, None, None, gradient * left_out
