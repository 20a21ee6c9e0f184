"""One AUC minus another on the same examples, and how much of it is chance.

DeLong, DeLong & Clarke-Pearson (1988): each example's influence on an AUC is the share of the other class that it is
ranked right against. Summed over a user's examples, which are not independent of each other, the influences give the
variance for clustered data (Obuchowski 1997). It takes a sort, where a bootstrap takes thousands.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

NORMAL_95: Final = 1.959964
"""Standard errors on either side of the mean that hold 95 % of a normal distribution."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AucDifference:
    """One AUC minus another, with its 95 % confidence interval."""

    difference: float
    low: float
    high: float

    @property
    def is_a_gain(self) -> bool:
        """Whether it is above zero by more than chance."""
        return self.low > 0


def auc_difference(
    labels: ArrayLike, scores: ArrayLike, others: ArrayLike, clusters: Sequence[Hashable]
) -> AucDifference:
    """AUC of the scores minus AUC of the other scores; all NaN unless both classes and two clusters occur.

    Args:
        labels: (n,) whether clicked.
        scores: (n,) higher means likelier.
        others: (n,) those that they are compared with.
        clusters: (n,) what examples depend on together: the user.
    """
    clicked = np.asarray(labels, bool)
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(cluster.max(initial=-1)) + 1
    if clicked.all() or not clicked.any() or count < 2:
        return AucDifference(float("nan"), float("nan"), float("nan"))
    right = _ranked_right(clicked, scores) - _ranked_right(clicked, others)  # (n,)
    difference = float(right[clicked].mean())
    influence = (right - difference) / np.where(clicked, clicked.sum(), (~clicked).sum())
    sums = np.bincount(cluster, weights=influence, minlength=count)  # (clusters,) they add up to zero
    margin = NORMAL_95 * float(np.sqrt(count / (count - 1) * np.square(sums).sum()))
    return AucDifference(difference, difference - margin, difference + margin)


def _ranked_right(clicked: NDArray[np.bool_], scores: ArrayLike) -> Floats:
    """For each example the share (n,) of the other class that it is ranked right against, ties counted half."""
    values = np.asarray(scores, np.float64)
    among_all, among_own = rankdata(values), np.empty(len(values))
    for of_class in (clicked, ~clicked):
        among_own[of_class] = rankdata(values[of_class])
    below = among_all - among_own  # so many of the other class are below
    return np.asarray(np.where(clicked, below / (~clicked).sum(), 1 - below / clicked.sum()))
