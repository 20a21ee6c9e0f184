"""Trains a network of `evaluation.peers.networks`, tuned on the validation part.

Every learning rate and penalty of the grid is tried; of each training the epoch with the lowest log loss on the
validation part is kept, and of all trainings the best. Training stops at the first epoch that is no better.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from evaluation.metrics import log_loss
from evaluation.peers.network_inputs import NetworkInputs
from evaluation.peers.networks import Network

LEARNING_RATES: Final = (1e-3, 3e-3)
PENALTIES: Final = (0.01, 0.3)
"""Weights of the mean squared length of the embeddings in the loss."""
MOST_EPOCHS: Final = 4
BATCH: Final = 1_024
SEED: Final = 0

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FittedNetwork:
    """A trained network with the settings that the validation part chose."""

    predict: Callable[[Places], Floats]
    """Probabilities (n,) of events (n,)."""
    settings: Mapping[str, float]
    validation_log_loss: float


def fit_network(kind: type[Network], inputs: NetworkInputs, train: Places, validation: Places) -> FittedNetwork:
    """The best of the grid.

    Args:
        kind: of `NETWORKS`.
        inputs: all events.
        train: (n,) places of the events to learn from.
        validation: (m,) places of the events to choose by.
    """
    fits = [_fit(kind, inputs, train, validation, *settings) for settings in product(LEARNING_RATES, PENALTIES)]
    return min(fits, key=lambda fitted: fitted.validation_log_loss)


def _fit(
    kind: type[Network],
    inputs: NetworkInputs,
    train: Places,
    validation: Places,
    learning_rate: float,
    penalty: float,
) -> FittedNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = kind(inputs)
        optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
        best, epochs, kept = float("inf"), 0, copy.deepcopy(network.state_dict())
        for epoch in range(1, MOST_EPOCHS + 1):
            _train_epoch(network, optimiser, inputs, train, penalty)
            loss = log_loss(inputs.clicked[validation].numpy(), _predict(network, validation))
            if loss >= best:
                break
            best, epochs, kept = loss, epoch, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    settings = {"learning_rate": learning_rate, "penalty": penalty, "epochs": epochs}
    return FittedNetwork(lambda places: _predict(network, places), settings, best)


def _train_epoch(
    network: Network, optimiser: torch.optim.Optimizer, inputs: NetworkInputs, train: Places, penalty: float
) -> None:
    network.train()
    # A last batch of one example has no spread to standardise by.
    for batch in torch.split(torch.from_numpy(train)[torch.randperm(len(train))], BATCH):
        if len(batch) == 1:
            continue
        logits, lengths = network(batch)
        loss = functional.binary_cross_entropy_with_logits(logits, inputs.clicked[batch].float())
        optimiser.zero_grad()
        torch.autograd.backward(loss + penalty * lengths)
        optimiser.step()


@torch.inference_mode()
def _predict(network: Network, places: Places) -> Floats:
    network.eval()
    logits = [network(batch)[0] for batch in torch.split(torch.from_numpy(places), 4 * BATCH)]
    return torch.sigmoid(torch.cat(logits).double()).numpy()
