"""Which epoch of a training is kept, by its loss on held-out examples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evaluation.metrics import log_loss
from training.replay import Example


class BestEpoch:
    """Which epoch to keep, and when to stop.

    Args:
        to_beat: validation loss of the regression on the statistics; only an epoch with a lower one is kept.
        begins_there: whether the training begins with that regression: then an epoch that is no better than it is one
            without improvement.
        patience: so many epochs in a row without improvement on those before end the training.
    """

    def __init__(self, to_beat: float, patience: int, *, begins_there: bool) -> None:
        self.loss = to_beat
        self.lowest = to_beat if begins_there else math.inf
        self.waited = 0
        self._patience = patience

    def take(self, loss: float) -> bool:
        """Whether an epoch with this validation loss is to be kept. One that is no number is no improvement."""
        self.waited = 0 if loss < self.lowest else self.waited + 1  # also where it is no number
        self.lowest = min(self.lowest, loss)
        if not loss < self.loss:
            return False
        self.loss = loss
        return True

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to hope for."""
        return self.waited >= self._patience


def loss_of(examples: Sequence[Example], logits: np.ndarray) -> float:
    """Log loss of raw logits (candidates,)."""
    labels = np.concatenate([example.labels for example in examples])
    return log_loss(labels, 1 / (1 + np.exp(-logits)))
