"""Turns the logits of exit heads into calibrated click-through rates and into the confidence that decides an exit.

Three models are fitted offline (`training.calibrate`) and applied here:
- per head, Platt scaling (Platt 1999): `ctr = sigmoid(slope * logit + intercept)`;
- per early head, a logistic regression for the probability that the final head's calibrated logit lies within
  `tolerance` of this head's;
- a logistic regression over `models.features.GRAPH_FEATURES`: the graph score, for candidates that reach no head in
  time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, dataclass, fields
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.features import GRAPH_FEATURES

Criterion = Literal["calibrated", "ratio"]
"""What decides an exit: the fitted confidence, or the criterion of OptiRAG-Rec (see `ratio_confidence`)."""

CONFIDENCE_FEATURES: Final = ("bias", "logit", "distance", "change", "trend", "spread", "entropy")
MAX_LOGIT: Final = 30.0
"""Logits are clipped here: beyond it a probability is 0 or 1 in float32 anyway."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """Compute and quality loss of one exit threshold, measured on held-out data."""

    threshold: float
    token_layer_share: float
    """Token-layers computed, as a share of those at full depth."""
    metric_loss: float
    """Increase of the log loss over full depth, as a share of it."""


@dataclass(frozen=True, eq=False)
class ExitCalibration:
    """Everything that turns raw logits into scores and exits.

    Args:
        slopes: (heads,) Platt slopes.
        intercepts: (heads,) Platt intercepts.
        confidence_weights: (heads - 1, len(CONFIDENCE_FEATURES)).
        tolerance: largest difference, in calibrated log-odds, between answers that count as the same.
        base_threshold: the exit threshold without load.
        floor_threshold: the lowest exit threshold that is ever used.
        frontier: compute and quality loss per threshold, by rising threshold.
        graph_mean: (len(GRAPH_FEATURES),) subtracted from the graph features.
        graph_scale: (len(GRAPH_FEATURES),) the features are then divided by it; never 0.
        graph_weights: (len(GRAPH_FEATURES),) weights of the standardised features.
        graph_bias: intercept of the graph score.
        criterion: what `confidence` computes; thresholds and frontier refer to it.

    Raises:
        ValueError: an array has the wrong shape or holds numbers that are not finite, or the floor threshold lies above
            the base threshold.
    """

    slopes: Floats
    intercepts: Floats
    confidence_weights: Floats
    tolerance: float
    base_threshold: float
    floor_threshold: float
    frontier: tuple[FrontierPoint, ...]
    graph_mean: Floats
    graph_scale: Floats
    graph_weights: Floats
    graph_bias: float
    criterion: Criterion = "calibrated"

    def __post_init__(self) -> None:
        shapes = {
            "slopes": (self.heads,),
            "intercepts": (self.heads,),
            "confidence_weights": (self.heads - 1, len(CONFIDENCE_FEATURES)),
            "graph_mean": (len(GRAPH_FEATURES),),
            "graph_scale": (len(GRAPH_FEATURES),),
            "graph_weights": (len(GRAPH_FEATURES),),
        }
        for name, shape in shapes.items():
            _check_array(name, getattr(self, name), shape)
        if self.floor_threshold > self.base_threshold:
            raise ValueError(f"floor_threshold {self.floor_threshold} lies above base_threshold {self.base_threshold}")

    @property
    def heads(self) -> int:
        """Number of exit heads, including the final one."""
        return len(self.slopes)

    def calibrated_logit(self, head: int, logit: ArrayLike) -> Floats:
        """Calibrated log-odds of a click from raw logits of a head; any shape."""
        return np.asarray(np.asarray(logit, np.float64) * self.slopes[head] + self.intercepts[head])

    def ctr(self, head: int, logit: ArrayLike) -> Floats:
        """Click-through rates from raw logits of a head; any shape."""
        return sigmoid(self.calibrated_logit(head, logit))

    def confidence(self, head: int, logits_so_far: ArrayLike) -> Floats:
        """Probability that deeper layers would not change the answer.

        Args:
            head: index of the deepest head reached.
            logits_so_far: (n, head + 1) raw logits of the heads up to this one.

        Returns:
            (n,) within [0, 1]; 1 at the final head.
        """
        logits = np.asarray(logits_so_far, np.float64)
        if head == self.heads - 1:
            return np.ones(len(logits))
        if self.criterion == "ratio":
            return ratio_confidence(logits)
        calibrated = logits * self.slopes[: head + 1] + self.intercepts[: head + 1]
        return sigmoid(confidence_features(calibrated) @ self.confidence_weights[head])

    def graph_ctr(self, features: ArrayLike) -> Floats:
        """Click-through rates (n,) from graph features (n, len(GRAPH_FEATURES)) alone."""
        standardised = (np.asarray(features, np.float64) - self.graph_mean) / self.graph_scale
        return sigmoid(standardised @ self.graph_weights + self.graph_bias)

    def to_json(self) -> str:
        """The calibration as a JSON object."""
        parts = {name: _plain(part) for name, part in asdict(self).items()}
        return json.dumps(parts, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ExitCalibration:
        """Read what `to_json` wrote.

        Raises:
            ValueError: fields are missing, unknown, of the wrong type or shape, or out of range.
        """
        parts = msgspec.json.decode(text, type=dict[str, Any])
        if "calm_threshold" in parts:  # its name in bundles of 0.1
            parts["base_threshold"] = parts.pop("calm_threshold")
        return msgspec.convert(parts, _Saved).checked()


def confidence_features(calibrated_logits: Floats) -> Floats:
    """Features of the logits so far that predict how close the latest is to the final one.

    Args:
        calibrated_logits: (n, k) calibrated logits of the first k heads.

    Returns:
        (n, len(CONFIDENCE_FEATURES)): 1; the latest logit z; |z|; |step| and step, where step is the change since the
        previous head (0 at the first); the range of the logits so far; the entropy of the latest answer in bits.
    """
    path = np.clip(calibrated_logits, -MAX_LOGIT, MAX_LOGIT)
    latest = path[:, -1]
    step = latest - path[:, -2] if path.shape[1] > 1 else np.zeros(len(path))
    ones = np.ones(len(path))
    return np.stack([ones, latest, np.abs(latest), np.abs(step), step, np.ptp(path, axis=1), _entropy(latest)], axis=1)


def ratio_confidence(logits: Floats) -> Floats:
    """The criterion of OptiRAG-Rec (arXiv 2501.02173): the ratio of positive to negative probability, and its trend.

    The larger of p and 1 - p, from the raw logit. If the last step went towards the other side, it is taken once more.

    Args:
        logits: (n, k) logits of the first k heads.

    Returns:
        (n,) within [0, 1]: 0.5 where both answers are equally likely, less where the next step would cross over.
    """
    path = np.clip(logits, -MAX_LOGIT, MAX_LOGIT)
    latest = path[:, -1]
    step = latest - path[:, -2] if path.shape[1] > 1 else np.zeros(len(path))
    side = np.where(latest < 0, -1.0, 1.0)
    return sigmoid(np.minimum(np.abs(latest), side * (latest + step)))


def sigmoid(logit: Floats) -> Floats:
    """The logistic function, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logit)))


def _entropy(logit: Floats) -> Floats:
    """Binary entropy in bits."""
    distance = np.abs(logit)
    nats = np.log1p(np.exp(-distance)) + distance * sigmoid(-distance)
    return np.asarray(nats / np.log(2))


def _check_array(name: str, array: Floats, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"calibration: {name} has shape {array.shape}, expected {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"calibration: {name} holds numbers that are not finite")


def _plain(part: Any) -> Any:  # noqa: ANN401 - a field of any type on its way into JSON
    return part.tolist() if isinstance(part, np.ndarray) else part


Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Saved(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of `ExitCalibration` as they stand in JSON."""

    slopes: list[float]
    intercepts: list[float]
    confidence_weights: list[list[float]]
    tolerance: Annotated[float, msgspec.Meta(ge=0)]
    base_threshold: Share
    floor_threshold: Share
    frontier: tuple[FrontierPoint, ...]
    graph_mean: list[float]
    graph_scale: list[Annotated[float, msgspec.Meta(gt=0)]]
    graph_weights: list[float]
    graph_bias: float
    criterion: Criterion

    def checked(self) -> ExitCalibration:
        """The calibration, with lists as arrays.

        Raises:
            ValueError: a number is not finite, or a part does not fit the others.
        """
        points = [number for point in self.frontier for number in astuple(point)]
        if not np.isfinite([self.tolerance, self.graph_bias, *points]).all():
            raise ValueError("calibration: tolerance, graph_bias or frontier hold numbers that are not finite")
        if any(lower.threshold > upper.threshold for lower, upper in pairwise(self.frontier)):
            raise ValueError("calibration: the thresholds of the frontier do not rise")
        parts = {field.name: getattr(self, field.name) for field in fields(ExitCalibration)}
        arrays = {name: np.array(part, np.float64) for name, part in parts.items() if isinstance(part, list)}
        if not self.confidence_weights:  # a model without early heads
            arrays["confidence_weights"] = np.zeros((0, len(CONFIDENCE_FEATURES)))
        return ExitCalibration(**parts | arrays)
