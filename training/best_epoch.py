"""Which epoch of a training is kept, mixed with how much of the regression, by its loss on held-out examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.metrics import log_loss
from models.calibration import sigmoid
from training.regression import Floats, best_share
from training.replay import Example


class BestEpoch:
    """Which epoch to keep, how much of the regression on the statistics to mix into it, and when to stop.

    Args:
        labels: (candidates,) of the held-out examples, 0 or 1.
        regression: their logits (candidates,) by the regression, None for a model without one.
        patience: so many epochs in a row without improvement end the training.

    Attributes:
        loss: the lowest so far; before an epoch is kept, the regression's.
        share: the regression's in the mixture that has it.
    """

    def __init__(self, labels: Floats, regression: Floats | None, patience: int) -> None:
        self.loss = math.inf if regression is None else loss_of(labels, regression)
        self.share = 0.0 if regression is None else 1.0
        self._labels, self._regression, self._patience = labels, regression, patience
        self._lowest = math.inf
        self._waited = 0

    def take(self, logits: Floats) -> bool:
        """Whether an epoch with these logits (candidates,) is to be kept. One that is better neither by itself nor
        mixed counts as one without improvement, as does one whose logits are not finite.
        """
        own = loss_of(self._labels, logits) if np.isfinite(logits).all() else math.nan
        if self._regression is None:
            share, loss = 0.0, own
        else:
            share, loss = best_share(self._regression, logits, self._labels)
        is_best = loss < self.loss
        self._waited = 0 if is_best or own < self._lowest else self._waited + 1
        self._lowest = min(self._lowest, own)  # stays where `own` is no number
        if is_best:
            self.loss, self.share = loss, share
        return is_best

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to hope for."""
        return self._waited >= self._patience

    def state(self) -> dict[str, float]:
        """What `continue_from` needs."""
        return {"loss": self.loss, "share": self.share, "lowest": self._lowest, "waited": self._waited}

    def continue_from(self, state: Mapping[str, Any]) -> None:
        """Go on where another process stopped."""
        self.loss, self.share = state["loss"], state["share"]
        self._lowest, self._waited = state["lowest"], state["waited"]


def labels_of(examples: Sequence[Example]) -> Floats:
    """Labels (candidates,) of the examples, 0 or 1."""
    return np.concatenate([example.labels for example in examples])


def loss_of(labels: Floats, logits: Floats) -> float:
    """Log loss of raw logits (candidates,)."""
    return log_loss(labels, sigmoid(logits.astype(np.float64)))
