"""From raw logits to scores that mean what they say, and to an exit threshold with a promise.

Held-out examples are cut into two random halves: everything is fitted on the first, and the exit threshold is tested on
the second (`learn_then_test`), so that its guarantee holds whatever the fit is worth.

**The promise.** For one example let d be its log loss when it leaves early, less 1 + `quality_loss` times its log loss
at full depth, both calibrated, cut off at ±`MAX_EXCESS` nats. (Log loss changes by no more than log-odds do, so the cut
matters only where an early answer is grossly off.) With probability at least 1 - `failure_probability` over the draw of
held-out examples the mean of d is not positive: early exits raise the log loss by at most `quality_loss` of it. Beside
it, measured on the same half but without guarantee, the AUC falls by at most `auc_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import auc, log_losses
from models.calibration import CONFIDENCE_FEATURES, Criterion, ExitCalibration, FrontierPoint, confidence_features
from models.features import GRAPH_FEATURES, as_unknown
from training.exit_costs import TokenCosts, answers_at, confidences, exit_heads
from training.learn_then_test import lowest_safe
from training.logistic import fit_logistic
from training.replay import Example

MAX_EXCESS: Final = 1.0
UNKNOWN_EVERY: Final = 10
"""Every so many held-out examples also stand for unknown users and items when the graph score is fitted."""
NEVER: Final = 1.0
"""The threshold that only certainty reaches: everything goes to the final head."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """What is promised, and how early answers are judged."""

    quality_loss: float = 0.01
    """Promised: leaving early raises the log loss by at most this share of it."""
    auc_loss: float = 0.001
    failure_probability: float = 0.05
    tolerance: float = 0.1
    """How far, in log-odds, an early answer may lie from the final one and count as the same."""
    thresholds: int = 50
    criterion: Criterion = "calibrated"


class HeldOut(NamedTuple):
    """Held-out examples and the model's answers to them."""

    logits: Floats  # (candidates, heads) raw
    labels: Floats  # (candidates,)
    graph_features: Floats  # (candidates, len(GRAPH_FEATURES))
    costs: TokenCosts

    @classmethod
    def of(cls, examples: Sequence[Example], logits: NDArray[np.float32]) -> HeldOut:
        """From examples and their logits (candidates, heads)."""
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
        to_fit: one half of the held-out examples; scores and confidences are fitted to it.
        to_test: the other half; the base threshold is chosen on it.
        exit_layers: depth of each head.
        options: what is promised.
    """
    fitted = _fit(to_fit, options)
    grid = _threshold_grid(confidences(fitted, to_fit.logits), options.thresholds)
    outcomes = _Outcomes(fitted, to_test, exit_layers)
    base = _base_threshold(outcomes, grid, options)
    return replace(
        fitted,
        base_threshold=base,
        floor_threshold=min(grid[0], base),
        frontier=tuple(outcomes.point(threshold) for threshold in grid),
    )


def _fit(held_out: HeldOut, options: CalibrationOptions) -> ExitCalibration:
    """Platt scaling per head, confidence per early head, and the graph score; the threshold is still `NEVER`."""
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
    """The examples, and some of them once more as if the user, the item or both were unknown.

    Held-out data hardly holds any such, and a regression that has never seen them would extrapolate to anything.
    """
    some = slice(None, None, UNKNOWN_EVERY)
    copies = [(True, False), (False, True), (True, True)]
    unknown = [as_unknown(features[some], user=user, item=item) for user, item in copies]
    return np.concatenate([features, *unknown]), np.concatenate([labels, *[labels[some]] * len(copies)])


def _fit_platt(logits: Floats, labels: Floats) -> Floats:
    """Slope and intercept (2,), drawn towards those that change nothing where there are few examples."""
    targets = (labels * len(labels) + 1.0) / (len(labels) + 2.0)
    return fit_logistic(np.column_stack([logits, np.ones(len(logits))]), targets)


def _fit_confidence(path: Floats, tolerance: float) -> Floats:
    """Weights (heads - 1, features) of how likely the final calibrated logit lies within tolerance of each head's."""
    weights = [
        fit_logistic(
            confidence_features(path[:, : head + 1]), np.abs(path[:, -1] - path[:, head]) <= tolerance, penalty=0.1
        )
        for head in range(path.shape[1] - 1)
    ]
    return np.array(weights).reshape(-1, len(CONFIDENCE_FEATURES))


def _threshold_grid(confidence: Floats, count: int) -> list[float]:
    """Thresholds by rising order, 0 first, `NEVER` last, between them equally many early confidences in each step."""
    early = confidence[:, :-1]
    inner = np.quantile(early, np.linspace(0, 1, count)) if early.size else np.empty(0)
    return [0.0, *(float(value) for value in np.unique(inner) if 0.0 < value < NEVER), NEVER]


class _Outcomes:
    """What each threshold does to a half of the held-out examples."""

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
        """How much larger each example's log loss (candidates,) is than at full depth, in nats."""
        heads = exit_heads(self._confidence, threshold)
        return log_losses(self._labels, answers_at(self._ctrs, heads)) - self.full_losses

    def broken_promise(self, threshold: float, quality_loss: float) -> Floats:
        """The promise is kept where the mean of this (candidates,) is not positive; within ±`MAX_EXCESS`."""
        return np.clip(self.excess(threshold) - quality_loss * self.full_losses, -MAX_EXCESS, MAX_EXCESS)

    def auc_loss(self, threshold: float) -> float:
        """How much lower the AUC is than at full depth; 0 where there is none."""
        loss = self.full_auc - auc(self._labels, answers_at(self._ctrs, exit_heads(self._confidence, threshold)))
        return loss if np.isfinite(loss) else 0.0

    def point(self, threshold: float) -> FrontierPoint:
        """The threshold's place on the frontier; its loss is the log loss's, as a share of that at full depth."""
        return FrontierPoint(
            threshold=threshold,
            token_layer_share=self._costs.share(self._exit_layers, exit_heads(self._confidence, threshold)),
            metric_loss=float(self.excess(threshold).mean() / self.full_losses.mean()),
        )


def _base_threshold(outcomes: _Outcomes, grid: Sequence[float], options: CalibrationOptions) -> float:
    """The lowest threshold that keeps the promise; `NEVER` where none could be shown to."""
    safe = lowest_safe(
        sorted(grid, reverse=True),
        lambda threshold: 0.5 + 0.5 * outcomes.broken_promise(threshold, options.quality_loss) / MAX_EXCESS,
        limit=0.5,
        failure_probability=options.failure_probability,
    )
    base = NEVER
    for threshold in sorted(grid, reverse=True):
        if safe is None or threshold < safe or outcomes.auc_loss(threshold) > options.auc_loss:
            break
        base = threshold
    return base
