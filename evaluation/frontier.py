"""The measured frontier: what each exit threshold costs, and how good its answers are, on held-out events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics import auc, log_loss

Floats = NDArray[np.float64]
Heads = NDArray[np.int64]
Share = Callable[[Heads], float]
"""From each candidate's head (candidates,), the token-layers computed as a share of those at full depth."""


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """Quality and work at one exit threshold."""

    threshold: float
    auc: float
    log_loss: float
    token_layer_share: float


def measured_frontier(
    labels: ArrayLike, ctrs: Floats, exits: Sequence[tuple[float, Heads]], share: Share
) -> tuple[MeasuredPoint, ...]:
    """Quality and work at every threshold.

    Args:
        labels: (candidates,) whether clicked.
        ctrs: (candidates, heads) calibrated click rates of each head.
        exits: exit thresholds, each with the head (candidates,) at which each candidate then leaves.
        share: tells the work from where the candidates leave.
    """
    points = []
    for threshold, heads in exits:
        answers = np.take_along_axis(ctrs, heads[:, None], axis=1)[:, 0]
        points.append(MeasuredPoint(threshold, auc(labels, answers), log_loss(labels, answers), share(heads)))
    return tuple(points)


def spread_thresholds(confidences: Floats, floor: float, never: float, base: float, count: int = 15) -> list[float]:
    """Rising thresholds from floor to never, about `count`, with the base threshold among them.

    The inner ones are quantiles of the early heads' confidences: equal steps would mostly lie where no candidate is.

    Args:
        confidences: (candidates, heads).
        floor: the lowest threshold that is ever used.
        never: the threshold of full depth.
        base: the threshold without load.
        count: how many, about: equal ones are listed once.
    """
    early = confidences[:, :-1]
    inner = np.quantile(early, np.linspace(0, 1, count - 1)[1:-1]) if early.size else np.zeros(0)
    return sorted({floor, base, never, *(float(value) for value in inner if floor < value < never)})
