"""Trains LightGCN's base embeddings on an early slice of the log: they must not know the labels of later examples.

All layers have the same weight unless asked otherwise. Users have no base embedding, so that z of a user comes from
clicked items alone and the model is inductive. In every step each user keeps a random share of their interactions as
history. The clicks among them are the edges of the graph; the loss is computed on the rest. So no prediction is made
from its own edge, and short histories are trained as well as long ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional

from models.graph_base import GraphBase, text_tokens
from models.lightgcn import both_directions, propagate
from models.text import Text
from schemas.messages import Interaction, Item
from training.clicks import is_click
from training.rank_items import RankingOptions, fit_to_rank


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """Hyperparameters of the base embeddings."""

    dim: int = 32
    layers: int = 2
    steps: int = 500
    learning_rate: float = 0.01
    regularisation: float = 3e-3
    """Weight of the mean squared norm of the base embeddings in the loss."""
    text_regularisation: float = 3.0
    """Ridge penalty of the map from words to base embeddings."""
    initial_std: float = 0.1
    ranking: RankingOptions | None = None
    """For a log whose users' clicks are known and not what else they saw: fit the embeddings to rank each user's clicks
    before the rest of the catalogue, with these hyperparameters. None predicts which impressions are clicked.
    """

    @property
    def most_steps(self) -> int:
        """Largest number of optimisation steps."""
        return self.steps if self.ranking is None else self.ranking.steps

    average: bool = True
    """Whether z is the mean over all layers, as LightGCN has it; False takes each node's last layer alone."""

    def alphas(self) -> list[float]:
        """The weight of each layer in z. Users have no base embedding, so every second layer of a node is zero: the
        last one of a user and that of an item are the last two.
        """
        if self.average:
            return [1 / (self.layers + 1)] * (self.layers + 1)
        return [float(layer >= self.layers - 1) for layer in range(self.layers + 1)]


def train_graph(
    interactions: Sequence[Interaction],
    items: Sequence[Item],
    text: Text,
    options: GraphOptions,
    on_step: Callable[[], None] = lambda: None,
) -> GraphBase:
    """Base embeddings of the items in `interactions`, and a map from words to base embeddings for all other items.

    Args:
        interactions: to train on, in time order.
        items: the catalogue.
        text: the tokenizer.
        options: hyperparameters.
        on_step: called after each optimisation step.
    """
    slice_ = _index(interactions)
    if options.ranking is None:
        alphas = options.alphas()
        base = _fit(slice_, alphas, options, on_step)
    else:
        alphas, base, _ = fit_to_rank(slice_.clicks(), options.ranking, on_step)
    tokens = {item.item_id: text.encode_item(item) for item in items}
    word_vectors, word_bias = _map_from_words(
        [tokens.get(item_id, []) for item_id in slice_.item_ids], base, text.vocabulary_size, options
    )
    return GraphBase(
        alphas=np.array(alphas, np.float32),
        item_ids=slice_.item_ids,
        item_embeddings=base,
        word_vectors=word_vectors,
        word_bias=word_bias,
    )


class _Slice(NamedTuple):
    """Interactions as tensors; users are nodes 0 … users - 1, items follow."""

    item_ids: list[str]
    users: int
    user_nodes: Tensor  # (interactions,)
    item_rows: Tensor  # (interactions,)
    labels: Tensor  # (interactions,) float32

    def clicks(self) -> csr_matrix:
        """(users, items), nonzero where the user clicked the item."""
        clicked = self.labels > 0
        places = self.user_nodes[clicked].numpy(), self.item_rows[clicked].numpy()
        return csr_matrix((np.ones(len(places[0]), np.float32), places), shape=(self.users, len(self.item_ids)))


def _index(interactions: Sequence[Interaction]) -> _Slice:
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user_nodes = [users.setdefault(interaction.user_id, len(users)) for interaction in interactions]
    item_rows = [items.setdefault(interaction.item_id, len(items)) for interaction in interactions]
    labels = [is_click(interaction) for interaction in interactions]
    return _Slice(
        item_ids=list(items),
        users=len(users),
        user_nodes=torch.tensor(user_nodes, dtype=torch.int64),
        item_rows=torch.tensor(item_rows, dtype=torch.int64),
        labels=torch.tensor(labels, dtype=torch.float32),
    )


def _fit(
    slice_: _Slice, alphas: Sequence[float], options: GraphOptions, on_step: Callable[[], None]
) -> NDArray[np.float32]:
    """Base embeddings (items, dim). Clicks are predicted from products of z, plus a bias per user and per item."""
    items = len(slice_.item_ids)
    base = nn.Parameter(torch.randn(items, options.dim) * options.initial_std)
    user_bias, item_bias = nn.Parameter(torch.zeros(slice_.users)), nn.Parameter(torch.zeros(items))
    optimiser = torch.optim.Adam([base, user_bias, item_bias], lr=options.learning_rate)
    for _ in range(options.steps):
        history = torch.rand(len(slice_.labels)) < torch.rand(slice_.users)[slice_.user_nodes]
        edges = history & (slice_.labels > 0)
        vectors = torch.cat([base.new_zeros(slice_.users, options.dim), base])  # (nodes, dim)
        edge_index = both_directions(slice_.user_nodes[edges], slice_.users + slice_.item_rows[edges])
        z = propagate(vectors, edge_index, None, alphas)  # (nodes, dim)
        users, asked = slice_.user_nodes[~history], slice_.item_rows[~history]
        logits = (z[users] * z[slice_.users + asked]).sum(1) + user_bias[users] + item_bias[asked]
        lengths = base.square().sum(1).mean() + 0.3 * (user_bias.square().mean() + item_bias.square().mean())
        loss = functional.binary_cross_entropy_with_logits(logits, slice_.labels[~history])
        optimiser.zero_grad()
        torch.autograd.backward(loss + options.regularisation * lengths)
        optimiser.step()
        on_step()
    fitted: NDArray[np.float32] = base.detach().numpy()
    return fitted


def _map_from_words(
    texts: Sequence[Sequence[int]], base: NDArray[np.float32], vocabulary: int, options: GraphOptions
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Ridge regression from a text's distinct tokens to its base embedding: (vocabulary, dim) and a bias (dim,)."""
    bags = [text_tokens(token_ids) for token_ids in texts]
    rows = np.repeat(np.arange(len(bags)), [len(bag) for bag in bags])
    shares = np.concatenate([np.full(len(bag), 1 / np.sqrt(max(len(bag), 1))) for bag in bags])
    # A token that occurs in no text has weight zero. Without it the system is small, also for the tens of thousands of
    # tokens that a pre-trained model knows.
    used, columns = np.unique(np.concatenate(bags), return_inverse=True)
    words = csr_matrix((shares, (rows, columns)), shape=(len(bags), len(used)))
    bias = base.mean(axis=0, dtype=np.float64)
    gram = (words.T @ words).toarray() + options.text_regularisation * np.eye(len(used))
    weights = np.zeros((vocabulary, base.shape[1]), np.float32)
    weights[used] = np.linalg.solve(gram, words.T @ (base - bias))
    return weights, bias.astype(np.float32)
