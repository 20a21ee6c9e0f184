"""How good the latest judged scores are: ranking (AUC), log loss and calibration. Numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from worker.engine.scoring_job import MADE_BY
from worker.outcomes.waiting import Judged

BINS: Final = 10
PROBABILITY_FLOOR: Final = 1e-7
"""Scores are kept this far from 0 and 1 in the log loss, so that one mistake does not outweigh everything."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What was predicted of some scores, and what came."""

    scores: int
    predicted: float
    """Their mean."""
    observed: float
    """The share of positive outcomes."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Of the window; all but the counts is NaN while it holds too few scores or outcomes of one kind only."""

    scores: int
    positives: int
    auc: float
    log_loss: float
    calibration_ratio: float
    """Mean prediction over the observed share: above 1 the scores promise too much."""
    predicted: float
    observed: float
    bins: Sequence[Calibration]
    """Ten bins of (nearly) equally many scores, the lowest predictions first; empty while there are too few."""
    made_by: Mapping[str, Calibration]
    """By what made the score, for those that occur; empty while there are too few."""


class OutcomeFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of outcomes. The counts are of candidates since the start."""

    quality: Quality
    waiting: int
    settled: int
    """Scores with an outcome."""
    expired: int
    """Scores without."""
    skipped: int
    """Scores not followed, for want of room."""


class OutcomeWindow:
    """The latest judged scores.

    Args:
        size: how many are kept.
        least: with fewer there are no figures.
    """

    def __init__(self, size: int, least: int) -> None:
        self._least = least
        self._added = 0
        self._ctr = np.zeros(size)
        self._positive = np.zeros(size, np.bool_)
        self._made_by = np.zeros(size, np.int8)

    def add(self, judged: Judged) -> None:
        """Takes in judged scores, in place of the oldest ones."""
        count, size = len(judged.ctr), len(self._ctr)
        places = (self._added + np.arange(count)[-size:]) % size
        self._ctr[places] = judged.ctr[-size:]
        self._positive[places] = judged.positive[-size:]
        self._made_by[places] = judged.made_by[-size:]
        self._added += count

    def quality(self) -> Quality:
        """The figures of what it holds."""
        count = min(self._added, len(self._ctr))
        return quality_of(self._ctr[:count], self._positive[:count], self._made_by[:count], self._least)


def quality_of(ctr: NDArray[np.float64], positive: NDArray[np.bool_], made_by: NDArray[np.int8], least: int) -> Quality:
    """The figures of judged scores, in any order.

    Args:
        ctr: (scores,) predictions.
        positive: (scores,) outcomes.
        made_by: (scores,) indices into `MADE_BY`.
        least: with fewer, or with outcomes of one kind only, there are none.
    """
    if len(ctr) < least or positive.all() or not positive.any():
        nan = math.nan
        return Quality(
            scores=len(ctr), positives=int(positive.sum()), bins=(), made_by={},
            auc=nan, log_loss=nan, calibration_ratio=nan, predicted=nan, observed=nan,
        )  # fmt: skip
    order = np.argsort(ctr, kind="stable")
    rungs = {name: made_by == code for code, name in enumerate(MADE_BY)}
    overall = _calibration(ctr, positive)
    return Quality(
        scores=len(ctr),
        positives=int(positive.sum()),
        auc=auc(ctr, positive),
        log_loss=log_loss(ctr, positive),
        calibration_ratio=overall.predicted / overall.observed,
        predicted=overall.predicted,
        observed=overall.observed,
        bins=[_calibration(ctr[part], positive[part]) for part in np.array_split(order, BINS) if len(part)],
        made_by={name: _calibration(ctr[rung], positive[rung]) for name, rung in rungs.items() if rung.any()},
    )


def auc(ctr: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve by ranks (Mann-Whitney), ties counted half; both outcomes must occur."""
    _, place, counts = np.unique(ctr, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(counts)
    ranks = (last_rank - (counts - 1) / 2)[place]  # of equal scores each has their mean rank
    positives = int(positive.sum())
    negatives = len(positive) - positives
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(ctr: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Mean negative log-likelihood in nats."""
    clipped = np.clip(ctr, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return float(-np.where(positive, np.log(clipped), np.log1p(-clipped)).mean())


def _calibration(ctr: NDArray[np.float64], positive: NDArray[np.bool_]) -> Calibration:
    return Calibration(scores=len(ctr), predicted=float(ctr.mean()), observed=float(positive.mean()))
