"""Logistic regression and gradient-boosted trees, each tuned on the validation part.

Settings are chosen by log loss on the validation part and nothing is refitted on it, as for our own model, which only
calibrates there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluation.metrics import log_loss

INVERSE_PENALTIES: Final = (1e-5, 1e-4, 0.001, 0.01, 0.1, 1.0)
LEAVES: Final = (8, 16, 32)
MOST_TREES: Final = 400
LEARNING_RATE: Final = 0.05
LEAST_IN_A_LEAF: Final = 50

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the split.

    Attributes:
        features: (n, k).
        labels: (n,) whether clicked.
    """

    features: Floats
    labels: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted model with the settings that the validation part chose."""

    predict: Callable[[Floats], Floats]
    """Probabilities (n,) of features (n, k)."""
    settings: Mapping[str, float]
    validation_log_loss: float


def fit_logistic_regression(train: Part, validation: Part) -> Fitted:
    """L2-penalised, on standardised features; the penalty is tuned."""

    def fitted(inverse_penalty: float) -> Fitted:
        model: Any = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=500))
        model.fit(train.features, train.labels)

        def predict(features: Floats) -> Floats:
            return np.asarray(model.predict_proba(features)[:, 1])

        loss = log_loss(validation.labels, predict(validation.features))
        return Fitted(predict, {"inverse_penalty": inverse_penalty}, loss)

    return min(map(fitted, INVERSE_PENALTIES), key=lambda one: one.validation_log_loss)


def fit_trees(train: Part, validation: Part) -> Fitted:
    """Histogram gradient boosting; leaves per tree and number of trees are tuned."""

    def fitted(leaves: int) -> Fitted:
        model: Any = HistGradientBoostingClassifier(
            learning_rate=LEARNING_RATE,
            max_iter=MOST_TREES,
            max_leaf_nodes=leaves,
            min_samples_leaf=LEAST_IN_A_LEAF,
            early_stopping=False,
            random_state=0,
        )
        model.fit(train.features, train.labels)
        stages = model.staged_predict_proba(validation.features)
        losses = [log_loss(validation.labels, stage[:, 1]) for stage in stages]
        trees = int(np.argmin(losses)) + 1

        def predict(features: Floats) -> Floats:
            stage = next(islice(model.staged_predict_proba(features), trees - 1, None))
            return np.asarray(stage[:, 1])

        return Fitted(predict, {"leaves": leaves, "trees": trees, "learning_rate": LEARNING_RATE}, min(losses))

    return min(map(fitted, LEAVES), key=lambda one: one.validation_log_loss)
