"""How good scores are: ranking (AUC) and calibration (log loss, expected calibration error)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score

PROBABILITY_FLOOR: Final = 1e-7
"""Scores are kept this far from 0 and 1 in the log loss, so that one mistake does not outweigh everything."""


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve, ties counted half; NaN unless both classes occur.

    Args:
        labels: (n,) whether clicked.
        scores: (n,) higher means likelier.
    """
    clicked = np.asarray(labels, bool)
    if clicked.all() or not clicked.any():
        return float("nan")
    return float(roc_auc_score(clicked, np.asarray(scores, np.float64)))


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean negative log-likelihood in nats; NaN without examples."""
    losses = log_losses(labels, probabilities)
    return float(losses.mean()) if len(losses) else float("nan")


def log_losses(labels: ArrayLike, probabilities: ArrayLike) -> NDArray[np.float64]:
    """The negative log-likelihood (n,) of each example, in nats; scikit-learn only has their mean."""
    clipped = np.clip(np.asarray(probabilities, np.float64), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return np.asarray(-np.where(np.asarray(labels, bool), np.log(clipped), np.log1p(-clipped)))


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> float:
    """Mean distance between predicted and observed click rate over bins of equally many examples; NaN without any."""
    predicted = np.asarray(probabilities, np.float64)
    if not len(predicted):
        return float("nan")
    order = np.argsort(predicted, kind="stable")
    clicked = np.asarray(labels, np.float64)
    gaps = [
        abs(predicted[part].mean() - clicked[part].mean()) * len(part)
        for part in np.array_split(order, bins)
        if len(part)
    ]
    return float(sum(gaps) / len(predicted))
