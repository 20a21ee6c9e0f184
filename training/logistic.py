"""Penalised logistic regression by Newton's method.

scikit-learn's takes class labels only; Platt scaling needs targets between 0 and 1.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.calibration import sigmoid

MAX_NEWTON_STEPS: Final = 50
CONVERGED: Final = 1e-9

Floats = NDArray[np.float64]


def fit_logistic(features: ArrayLike, targets: ArrayLike, penalty: float = 1e-6) -> Floats:
    """Weights (k,) that maximise the likelihood of targets given features, less the penalty.

    Args:
        features: (n, k); a constant column where an intercept is wanted.
        targets: (n,) from 0 to 1.
        penalty: half the cost of each squared weight.
    """
    design = np.asarray(features, np.float64)
    wanted = np.asarray(targets, np.float64)
    weights = np.zeros(design.shape[1])
    for _ in range(MAX_NEWTON_STEPS):
        predicted = sigmoid(design @ weights)
        gradient = design.T @ (predicted - wanted) + penalty * weights
        curvature = (design.T * (predicted * (1 - predicted))) @ design + (penalty + 1e-9) * np.eye(design.shape[1])
        step = np.linalg.solve(curvature, gradient)
        # Far from the optimum a full step can overshoot: at most 5 in log-odds.
        step *= min(1.0, 5.0 / (float(np.abs(design @ step).max(initial=0.0)) + 1e-12))
        weights = weights - step
        if float(np.abs(step).max(initial=0.0)) < CONVERGED:
            break
    return weights
