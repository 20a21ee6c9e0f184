"""The wide part of a model, a logistic regression on the statistics, and how heads begin beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import nn

from models.exit_model import ExitHead, ExitModel
from training.best_epoch import loss_of
from training.logistic import fit_logistic
from training.replay import Example

WIDE_PENALTY: Final = 1.0
"""Half the cost of each squared weight of the regression on the standardised statistics."""
_MOST_FOR_WIDE: Final = 1 << 19
"""Candidates that the regression on the statistics is fitted to: far more than its few weights need."""
HEAD_STD: Final = 0.1
"""Standard deviation of the heads' initial weights."""
_SMALLEST_SCALE: Final = 1e-3
"""A statistic that hardly varies in training gets no large weight for it."""


@torch.no_grad()
def fit_wide(model: ExitModel, examples: Sequence[Example]) -> None:
    """Fits the wide part, a logistic regression on the statistics, and silences the heads: all give its answer. That is
    what a training has to beat.
    """
    if model.wide is None:
        return
    statistics, labels = _statistics(examples, model.config.statistics)
    mean, scale = statistics.mean(axis=0), np.maximum(statistics.std(axis=0), _SMALLEST_SCALE)
    standardised = (statistics - mean) / scale
    weights = fit_logistic(np.column_stack([standardised, np.ones(len(labels))]), labels, WIDE_PENALTY)
    slopes = weights[:-1] / scale
    model.wide.weight.copy_(torch.from_numpy(slopes[None]))
    model.wide.bias.fill_(weights[-1] - slopes @ mean)
    model.wide.requires_grad_(requires_grad=False)
    for head in model.heads:
        if isinstance(head, ExitHead):
            nn.init.zeros_(head.linear.weight)
            nn.init.zeros_(head.linear.bias)


@torch.no_grad()
def begin_together(model: ExitModel, seed: int) -> None:
    """Lets the wide part begin at nothing and the heads at random, so that they learn together (Cheng et al. 2016).

    Beside a regression that is fitted already, layers learn next to nothing: what is linear in the statistics is the
    slope that first tells them which way a click lies (docs/decisions/wide-and-deep.md).
    """
    if model.wide is None:
        return
    nn.init.zeros_(model.wide.weight)
    nn.init.zeros_(model.wide.bias)
    model.wide.requires_grad_(requires_grad=True)
    random = torch.Generator().manual_seed(seed)
    for head in model.heads:
        if isinstance(head, ExitHead):
            nn.init.normal_(head.linear.weight, std=HEAD_STD, generator=random)
            nn.init.zeros_(head.linear.bias)


def _statistics(examples: Sequence[Example], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Statistics (candidates, count) and labels (candidates,) of the first examples; of shards these are any."""
    statistics, labels, candidates = [], [], 0
    for example in examples:
        statistics.append(example.prompt.statistics(count))
        labels.append(example.labels)
        candidates += len(example)
        if candidates >= _MOST_FOR_WIDE:
            break
    return np.concatenate(statistics), np.concatenate(labels)


def loss_at_first(model: ExitModel, examples: Sequence[Example]) -> float:
    """Log loss of the regression on the statistics, whose answer all heads give at first: no layer has to run. Without
    a regression it is infinite, so that the first epoch is better.
    """
    if model.wide is None:
        return math.inf
    statistics = np.concatenate([example.prompt.statistics(model.config.statistics) for example in examples])
    with torch.no_grad():
        logits = model.wide(torch.from_numpy(statistics).float().to(model.wide.weight.device))
    return loss_of(examples, logits[:, 0].cpu().numpy())
