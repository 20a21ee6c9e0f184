"""The AUC of a fixed set of pages, and confidence intervals of AUC differences by a paired bootstrap over pages.

AUC is the share of (clicked, not clicked) pairs of candidates in which the clicked one has the higher score. Counted
for each pair of pages, the AUC of any resample of pages is a quotient of two quadratic forms of the pages' weights, so
thousands of resamples cost next to nothing. Both sides of a comparison are resampled together (paired): the pages are
the same, so most of their difference in difficulty cancels out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

RESAMPLES: Final = 2_000
COVERAGE: Final = 0.95

Floats = NDArray[np.float64]


class Difference(msgspec.Struct, frozen=True):
    """One AUC minus another, with its confidence interval."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairCounts:
    """How often the clicked candidates of one page were scored above the others of another (or the same) page.

    Attributes:
        wins: (pages, pages) by page of the clicked candidate, then page of the other; ties count half.
        pairs: (pages, pages) how many pairs there are.
    """

    wins: Floats
    pairs: Floats

    @classmethod
    def of(cls, labels: NDArray[np.bool_], ctrs: Floats) -> PairCounts:
        """Counts of several passes over the same pages: wins are averaged, so `auc` is the mean AUC of a pass.

        Args:
            labels: (pages, candidates) whether clicked.
            ctrs: (passes, pages, candidates) scores; NaN for an unanswered request, which wins no pair.
        """
        clicked = labels.sum(axis=1).astype(np.float64)
        wins = np.mean([_wins(labels, each) for each in ctrs], axis=0)
        return cls(wins, np.outer(clicked, labels.shape[1] - clicked))

    def auc(self, weights: Floats | None = None) -> Floats:
        """The AUC of the pages, each counted as often as its weight says.

        Args:
            weights: (…, pages); None counts each page once.
        """
        weights = np.ones(len(self.wins)) if weights is None else weights
        return np.asarray(_quadratic(self.wins, weights) / _quadratic(self.pairs, weights))


def difference(one: PairCounts, other: PairCounts, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """The AUC of `one` minus that of `other`, both over the same pages, with its bootstrap percentile interval."""
    pages = len(one.wins)
    weights = np.random.default_rng(seed).multinomial(pages, np.full(pages, 1 / pages), resamples).astype(np.float64)
    differences = one.auc(weights) - other.auc(weights)
    outside = 100 * (1 - COVERAGE) / 2
    low, high = np.nanpercentile(differences, (outside, 100 - outside))
    return Difference(float(one.auc() - other.auc()), float(low), float(high))


def _wins(labels: NDArray[np.bool_], ctrs: Floats) -> Floats:
    """(pages, pages) of one pass, labels and scores (pages, candidates)."""
    pages = len(labels)
    page_of_other = np.nonzero(~labels)[0]
    others = ctrs[~labels]  # (not clicked,)
    wins = np.zeros((pages, pages))
    for page in range(pages):
        clicked = ctrs[page][labels[page]][:, None]  # (clicked of this page, 1)
        beaten = (clicked > others).sum(axis=0) + 0.5 * (clicked == others).sum(axis=0)
        wins[page] = np.bincount(page_of_other, weights=beaten, minlength=pages)
    return wins


def _quadratic(matrix: Floats, weights: Floats) -> Floats:
    return np.asarray(((weights @ matrix) * weights).sum(axis=-1))
