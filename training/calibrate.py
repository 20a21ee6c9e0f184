"""Fits the calibration of a model, and chooses the exit threshold that keeps a promise about quality.

Held-out examples are split into two random halves. Scores and confidences are fitted on the first; the exit threshold
is tested on the second (`learn_then_test`), so that the guarantee holds however good the fit is.

**The promise.** For one example let d be its log loss with early exit, minus (1 + `quality_loss`) times its log loss at
full depth, both calibrated, clipped to ±`MAX_EXCESS` nats. (Log loss changes by no more than log-odds do, so clipping
matters only where an early answer is far off.) With probability at least 1 - `failure_probability` over the draw of the
held-out examples, the mean of d is not positive: early exits raise the log loss by at most the share `quality_loss`.
In addition, measured on the same half but without guarantee, the AUC falls by at most `auc_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics import auc, log_losses
from models.calibration import CONFIDENCE_FEATURES, Criterion, ExitCalibration, FrontierPoint, confidence_features
from models.features import GRAPH_FEATURES, as_unknown
from training.exit_costs import TokenCosts, answers_at, confidences, exit_heads
from training.learn_then_test import lowest_safe
from training.logistic import fit_logistic
from training.replay import Example

MAX_EXCESS: Final = 1.0
UNKNOWN_EVERY: Final = 10
"""One in this many held-out examples is repeated as of an unknown user or item when the graph score is fitted."""
NEVER: Final = 1.0
"""At this threshold everything goes to the final head, unless an early confidence is exactly 1."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """What is promised, and which early answers count as right."""

    quality_loss: float = 0.01
    """Early exits raise the log loss by at most this share of it: the promise."""
    auc_loss: float = 0.001
    """Early exits lower the AUC by at most this much on the tested half."""
    failure_probability: float = 0.05
    """Probability that the promise does not hold."""
    tolerance: float = 0.1
    """Largest difference, in log-odds, between an early and the final answer that count as the same."""
    thresholds: int = 50
    """Number of thresholds to try, about."""
    criterion: Criterion = "calibrated"


class HeldOut(NamedTuple):
    """Held-out examples, and the model's logits for them."""

    logits: Floats  # (candidates, heads) raw
    labels: Floats  # (candidates,)
    graph_features: Floats  # (candidates, len(GRAPH_FEATURES))
    costs: TokenCosts

    @classmethod
    def of(cls, examples: Sequence[Example], logits: NDArray[np.float32]) -> HeldOut:
        """Of examples and their raw logits (candidates, heads)."""
        return cls(
            logits=np.asarray(logits, np.float64),
            labels=np.concatenate([example.labels for example in examples]).astype(np.float64),
            graph_features=np.concatenate([example.graph_features() for example in examples]).astype(np.float64),
            costs=TokenCosts.of(examples),
        )


def calibrate(
    to_fit: HeldOut, to_test: HeldOut, exit_layers: Sequence[int], options: CalibrationOptions
) -> ExitCalibration:
    """The calibration of a model.

    Args:
        to_fit: the half of the held-out examples that scores and confidences are fitted to.
        to_test: the half that the base threshold is chosen on.
        exit_layers: number of layers before each head.
        options: the promise.
    """
    fitted = _fit(to_fit, options)
    grid = _threshold_grid(confidences(fitted, to_fit.logits), options.thresholds)
    outcomes = _Outcomes(fitted, to_test, exit_layers)
    return replace(
        fitted,
        base_threshold=_base_threshold(outcomes, grid, options),
        frontier=tuple(outcomes.point(threshold) for threshold in grid),
    )


def _fit(held_out: HeldOut, options: CalibrationOptions) -> ExitCalibration:
    """Platt scaling per head, confidence per early head, and the graph score; no base threshold and no frontier yet."""
    heads = held_out.logits.shape[1]
    platt = np.stack([_fit_platt(held_out.logits[:, head], held_out.labels) for head in range(heads)])
    path = held_out.logits * platt[:, 0] + platt[:, 1]  # (candidates, heads)
    features, labels = _with_unknowns(held_out.graph_features, held_out.labels)
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale < 1e-6] = 1.0
    standardised = (features - mean) / scale
    graph = fit_logistic(np.column_stack([standardised, np.ones(len(standardised))]), labels, penalty=1.0)
    return ExitCalibration(
        slopes=platt[:, 0],
        intercepts=platt[:, 1],
        confidence_weights=_fit_confidence(path, options.tolerance),
        tolerance=options.tolerance,
        base_threshold=NEVER,
        floor_threshold=0.0,
        frontier=(),
        graph_mean=mean,
        graph_scale=scale,
        graph_weights=graph[: len(GRAPH_FEATURES)],
        graph_bias=float(graph[-1]),
        criterion=options.criterion,
    )


def _with_unknowns(features: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """The examples, and some of them repeated as if the user, the item or both were unknown.

    Held-out data has hardly any unknown ids, and without them the regression would extrapolate wildly.
    """
    some = slice(None, None, UNKNOWN_EVERY)
    copies = [(True, False), (False, True), (True, True)]
    unknown = [as_unknown(features[some], user=user, item=item) for user, item in copies]
    return np.concatenate([features, *unknown]), np.concatenate([labels, *[labels[some]] * len(copies)])


def _fit_platt(logits: Floats, labels: Floats) -> Floats:
    """Slope and intercept (2,), fitted to Platt's smoothed targets: with few examples, answers stay cautious."""
    targets = (labels * len(labels) + 1.0) / (len(labels) + 2.0)
    return fit_logistic(np.column_stack([logits, np.ones(len(logits))]), targets)


def _fit_confidence(path: Floats, tolerance: float) -> Floats:
    """Weights (heads - 1, features) for the probability that a head's answer counts as the same as the final one."""
    weights = [
        fit_logistic(
            confidence_features(path[:, : head + 1]), np.abs(path[:, -1] - path[:, head]) <= tolerance, penalty=0.1
        )
        for head in range(path.shape[1] - 1)
    ]
    return np.array(weights).reshape(-1, len(CONFIDENCE_FEATURES))


def _threshold_grid(confidence: Floats, count: int) -> list[float]:
    """Rising thresholds from 0 to `NEVER`, with about equally many early confidences between neighbours."""
    early = confidence[:, :-1]
    inner: ArrayLike = np.quantile(early, np.linspace(0, 1, count)) if early.size else []
    return [0.0, *(float(value) for value in np.unique(inner) if 0.0 < value < NEVER), NEVER]


class _Outcomes:
    """Costs and losses of each threshold on one half of the held-out examples."""

    def __init__(self, calibration: ExitCalibration, held_out: HeldOut, exit_layers: Sequence[int]) -> None:
        heads = range(calibration.heads)
        self._exit_layers = exit_layers
        self._confidence = confidences(calibration, held_out.logits)
        self._ctrs = np.stack([calibration.ctr(head, held_out.logits[:, head]) for head in heads], axis=1)
        self._labels = held_out.labels
        self._costs = held_out.costs
        self.full_losses = log_losses(self._labels, self._ctrs[:, -1])
        self.full_auc = auc(self._labels, self._ctrs[:, -1])

    def excess(self, threshold: float) -> Floats:
        """Increase of each candidate's log loss over full depth, in nats: (candidates,)."""
        heads = exit_heads(self._confidence, threshold)
        return log_losses(self._labels, answers_at(self._ctrs, heads)) - self.full_losses

    def promise_margin(self, threshold: float, quality_loss: float) -> Floats:
        """The d of the promise, within ±`MAX_EXCESS`: (candidates,). The promise holds if its mean is not positive."""
        return np.clip(self.excess(threshold) - quality_loss * self.full_losses, -MAX_EXCESS, MAX_EXCESS)

    def auc_loss(self, threshold: float) -> float:
        """Decrease of the AUC from full depth; 0 where the AUC is undefined."""
        loss = self.full_auc - auc(self._labels, answers_at(self._ctrs, exit_heads(self._confidence, threshold)))
        return loss if np.isfinite(loss) else 0.0

    def point(self, threshold: float) -> FrontierPoint:
        """The point of the frontier for a threshold; its loss is the increase of the log loss, as a share."""
        return FrontierPoint(
            threshold=threshold,
            token_layer_share=self._costs.share(self._exit_layers, exit_heads(self._confidence, threshold)),
            metric_loss=float(self.excess(threshold).mean() / self.full_losses.mean()),
        )


def _base_threshold(outcomes: _Outcomes, grid: Sequence[float], options: CalibrationOptions) -> float:
    """The lowest threshold that is shown to keep the promise and keeps the AUC; `NEVER` if there is none."""
    safe = lowest_safe(
        sorted(grid, reverse=True),
        lambda threshold: 0.5 + 0.5 * outcomes.promise_margin(threshold, options.quality_loss) / MAX_EXCESS,
        limit=0.5,
        failure_probability=options.failure_probability,
    )
    base = NEVER
    for threshold in sorted(grid, reverse=True):
        if safe is None or threshold < safe or outcomes.auc_loss(threshold) > options.auc_loss:
            break
        base = threshold
    return base
