"""LightGCN by torch-geometric, trained on the clicks of the training part, then frozen.

He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020, arXiv
2002.02126. Its loss is the paper's: a click's score above that of an item without one. Such an item is either drawn at
random, as in the paper, or one that the same user was shown and did not click, where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.nn import LightGCN

from evaluation.peers.network_inputs import NetworkInputs
from models.lightgcn import both_directions

DIM: Final = 32
STEPS: Final = 200
BATCH: Final = 16_384
LEARNING_RATE: Final = 0.01
REGULARISATION: Final = 1e-4
SEED: Final = 0

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LightGcnSettings:
    """What is tuned.

    Attributes:
        layers: of propagation.
        shown_negatives: whether a click is compared with what the user was shown and did not click.
    """

    layers: int
    shown_negatives: bool


GRID: Final = tuple(LightGcnSettings(layers, shown) for layers in (1, 2) for shown in (False, True))


@dataclass(frozen=True, slots=True)
class _Graph:
    """Clicks and non-clicks of the training part; users are nodes first, then items."""

    nodes: int
    items_from: int  # the first item's node
    clicks: Tensor  # (2, clicks) nodes of user and item
    others: Tensor  # (2, non-clicks) in order of user
    first_other: Tensor  # (items_from + 1,) where each user's non-clicks start

    @classmethod
    def of(cls, inputs: NetworkInputs, train: Places) -> _Graph:
        """That of the events (n,) of the training part."""
        places = torch.from_numpy(train)
        items_from = inputs.user_rows
        edges = torch.stack([inputs.users[places], items_from + inputs.item_ids[inputs.items[places]]])
        clicked = inputs.clicked[places] == 1
        others = edges[:, ~clicked]
        others = others[:, others[0].argsort(stable=True)]
        first_other = torch.searchsorted(others[0].contiguous(), torch.arange(items_from + 1))
        return cls(items_from + inputs.item_id_rows, items_from, edges[:, clicked], others, first_other)

    def negatives(self, users: Tensor, shown: bool) -> Tensor:
        """Nodes (n,) of items to compare clicks of these users (n,) with."""
        # Row 0 of the items stands for those that the training part does not have.
        drawn = torch.randint(self.items_from + 1, self.nodes, users.shape)
        if not shown or not self.others.shape[1]:
            return drawn
        first, end = self.first_other[users], self.first_other[users + 1]
        place = first + (torch.rand(len(users)) * (end - first)).long()
        return torch.where(first < end, self.others[1][place.clamp(max=self.others.shape[1] - 1)], drawn)


def light_gcn_features(inputs: NetworkInputs, train: Places, settings: LightGcnSettings) -> Floats:
    """The score of every event's user and item, 0 where the training part has no click of either; and whether it has
    one of both (events, 2).
    """
    graph = _Graph.of(inputs, train)
    users, items = inputs.users, graph.items_from + inputs.item_ids[inputs.items]
    degrees = torch.bincount(graph.clicks.flatten(), minlength=graph.nodes)
    known = (degrees[users] > 0) & (degrees[items] > 0)
    embeddings = _fit(graph, settings)
    scores = (embeddings[users] * embeddings[items]).sum(1) * known
    return torch.stack([scores, known.float()], dim=1).double().numpy()


def _fit(graph: _Graph, settings: LightGcnSettings) -> Tensor:
    """Embeddings (nodes, DIM), propagated."""
    edges = both_directions(*graph.clicks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = LightGCN(graph.nodes, DIM, settings.layers)
        optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        for _ in range(STEPS if graph.clicks.shape[1] else 0):
            drawn = torch.randint(graph.clicks.shape[1], (min(BATCH, graph.clicks.shape[1]),))
            users, clicked = graph.clicks[:, drawn]
            others = graph.negatives(users, settings.shown_negatives)
            embeddings = model.get_embedding(edges)
            ranks = [(embeddings[users] * embeddings[items]).sum(1) for items in (clicked, others)]
            nodes = torch.unique(torch.cat([users, clicked, others]))
            loss = model.recommendation_loss(*ranks, node_id=nodes, lambda_reg=REGULARISATION)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
    with torch.inference_mode():
        embeddings = model.get_embedding(edges)
    return embeddings  # type: ignore[no-any-return]
