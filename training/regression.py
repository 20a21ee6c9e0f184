"""A logistic regression on the statistics, and how it is mixed into a trained model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluation.metrics import log_loss
from models.calibration import sigmoid
from models.exit_model import ExitHead, ExitModel
from training.logistic import fit_logistic
from training.replay import Example

Floats = NDArray[np.floating]

WIDE_PENALTY: Final = 1.0
"""Half the cost of each squared weight of the regression on the standardised statistics."""
_MOST_FOR_WIDE: Final = 1 << 19
"""Candidates that the regression on the statistics is fitted to: far more than its few weights need."""
_INITIAL_LOGITS: Final = 0.8
"""Standard deviation of the heads' initial answers."""
_SMALLEST_SCALE: Final = 1e-3
"""A statistic that hardly varies in training gets no large weight for it."""
_SHARES: Final = np.linspace(0.0, 1.0, 41)
"""Shares of the regression that are tried."""


@dataclass(frozen=True, eq=False, slots=True)
class Regression:
    """A logistic regression on the statistics of a candidate: what a training has to beat.

    Args:
        weight: (1, statistics).
        bias: (1,).
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def fitted(cls, examples: Sequence[Example], statistics: int) -> Regression:
        """Fitted to the first examples; of shards these are any.

        Args:
            examples: to fit to.
            statistics: how many of the `FEATURES` it reads, the leading ones.
        """
        values, labels = _statistics_and_labels(examples, statistics)
        mean, scale = values.mean(axis=0), np.maximum(values.std(axis=0), _SMALLEST_SCALE)
        standardised = np.column_stack([(values - mean) / scale, np.ones(len(labels))])
        weights = fit_logistic(standardised, labels, WIDE_PENALTY)
        slopes = weights[:-1] / scale
        return cls(torch.from_numpy(slopes[None]).float(), torch.tensor([weights[-1] - slopes @ mean]).float())

    def logits(self, examples: Sequence[Example]) -> Floats:
        """Raw logits (candidates,)."""
        values = np.concatenate([example.prompt.statistics(self.weight.shape[1]) for example in examples])
        logits: Floats = (torch.from_numpy(values).float() @ self.weight[0] + self.bias).numpy()
        return logits

    @torch.no_grad()
    def mix_into(self, model: ExitModel, share: float) -> None:
        """Let the model answer `share` times the regression's logits and the rest of its own. Both are linear in the
        last step, so the model does not grow: with 1 it is the regression, and no layer counts.
        """
        wide = _wide_of(model)
        wide.weight.lerp_(self.weight.to(wide.weight), share)
        wide.bias.lerp_(self.bias.to(wide.bias), share)
        for head in _heads_of(model):
            head.linear.weight.mul_(1.0 - share)
            head.linear.bias.mul_(1.0 - share)


@torch.no_grad()
def begin_together(model: ExitModel, seed: int) -> None:
    """Lets a wide part begin at nothing and the heads at random, so that they learn together (Cheng et al. 2016).

    Beside a regression that is fitted already, layers learn next to nothing: what is linear in the statistics is the
    slope that first tells them which way a click lies (docs/decisions/wide-and-deep.md).
    """
    if model.wide is not None:
        nn.init.zeros_(model.wide.weight)
        nn.init.zeros_(model.wide.bias)
    random = torch.Generator().manual_seed(seed)
    for head in _heads_of(model):
        weight = head.linear.weight
        # What the head reads is normalised, then multiplied by its norm's weights: those of a checkpoint are not 1.
        read = float(head.norm.weight.float().square().mean().sqrt())
        scale = _INITIAL_LOGITS / (math.sqrt(weight.shape[1]) * max(read, _SMALLEST_SCALE))
        weight.copy_(torch.randn(weight.shape, generator=random) * scale)
        nn.init.zeros_(head.linear.bias)


def share_in_words(share: float) -> str:
    """What a training says of the regression's share in what is kept."""
    return (
        f"of every answer {share:.0%} is that of a regression on the statistics alone, which was mixed in as the "
        "validation examples ask for"
    )


def best_share(regression: Floats, layers: Floats, labels: Floats) -> tuple[float, float]:
    """The share of the regression in the mean with the lowest log loss, and that loss; it is no number where the
    layers' logits are none.

    Args:
        regression: its logits (candidates,).
        layers: the model's logits (candidates,).
        labels: (candidates,) 0 or 1.
    """
    if not np.isfinite(layers).all():
        return 1.0, math.nan
    means = (share * regression + (1.0 - share) * layers for share in _SHARES)
    losses = [log_loss(labels, sigmoid(mean)) for mean in means]
    best = int(np.argmin(losses))
    return float(_SHARES[best]), losses[best]


def _statistics_and_labels(examples: Sequence[Example], count: int) -> tuple[Floats, Floats]:
    """Statistics (candidates, count) and labels (candidates,) of the first examples."""
    statistics, labels, candidates = [], [], 0
    for example in examples:
        statistics.append(example.prompt.statistics(count))
        labels.append(example.labels)
        candidates += len(example)
        if candidates >= _MOST_FOR_WIDE:
            break
    return np.concatenate(statistics), np.concatenate(labels)


def _wide_of(model: ExitModel) -> nn.Linear:
    if model.wide is None:
        raise ValueError("a model without a wide part has no place for a regression")
    return model.wide


def _heads_of(model: ExitModel) -> list[ExitHead]:
    return [head for head in model.heads if isinstance(head, ExitHead)]
