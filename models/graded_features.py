"""Features from grades: not only whether users clicked, but how good it was for them.

A grade lies between 0 and 1. Where nobody sends any, a click has 1 and everything else 0, and these features say what
the rates say. Where ratings or watched shares are known, they tell a reader who gives everything a 7 from one who gives
3 or 10. An item's expected grade is its mean, shrunk towards the mean of all; the surprise of a past interaction is its
grade minus the item's expected one.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.features import (
    GRADED_FEATURES,
    PRIOR_IMPRESSIONS,
    PRIOR_SHARED,
    PRIOR_SURPRISE,
    RECENT_HALF_LIFE,
    Features,
    telling_and_known,
)

PRIOR_SPREAD: Final = 0.25
"""Standard deviation of a user's grades as long as there are none."""
BIAS_VARIANCE: Final = 0.5
ATTRIBUTES_VARIANCE: Final = 0.2
WORDS_VARIANCE: Final = 0.2
"""Prior variances of how much better than others a user grades everything, items of the same attributes, and items
of the same words; the variance of a single grade around these is 1."""
MOST_REGRESSED: Final = 100
"""The latest of a history that the regression is made on, as its time grows with the cube of their number."""
SIMILAR_POWER: Final = 4
"""Of a cosine: what is a little alike tells nearly nothing."""
USER_FEATURES: Final = 4
"""The leading ones, which are the same for all candidates."""

Numbers = NDArray[np.float64]


class Counted(NamedTuple):
    """Impressions and the sum of their grades, of anything: arrays of the same shape."""

    impressions: Numbers
    grades: Numbers

    def expected(self, prior: float | Numbers) -> Numbers:
        """The mean grade, shrunk towards `prior`."""
        shrunk: Numbers = (self.grades + PRIOR_IMPRESSIONS * prior) / (self.impressions + PRIOR_IMPRESSIONS)
        return shrunk


class PastGrades(NamedTuple):
    """A user's past, as far back as it is kept, oldest first."""

    grades: Numbers  # (history,)
    items: Counted  # (history,) each
    user: Counted  # () ever
    mean: float
    """Of all interactions with any item."""

    def surprises(self) -> Numbers:
        """(history,) each grade minus the expected one of its item."""
        return self.grades - self.items.expected(self.mean)

    def bias(self) -> float:
        """The mean surprise, shrunk towards 0: how much better or worse this user grades than others do."""
        return float(self.surprises().sum()) / (len(self.grades) + PRIOR_SURPRISE)


class SharedGrades(NamedTuple):
    """Of the candidates' attributes, value by value."""

    there: NDArray[np.bool_]  # (candidates, values) False where a candidate has fewer values
    of_others: Counted  # (candidates, values) each: of the other items with the value
    met: Numbers  # (candidates, values) the user's own impressions with it
    surprise: Numbers  # (candidates, values) the sum of their surprises minus the user's bias


def user_grades(past: PastGrades) -> Features:
    """The leading `USER_FEATURES` of `GRADED_FEATURES`."""
    surprises, events = past.surprises(), len(past.grades)
    fresh = 0.5 ** (np.arange(events)[::-1] / RECENT_HALF_LIFE)
    spread = 0.0 if not events else float(np.square(past.grades - past.grades.mean()).sum())
    return np.array(
        (
            past.user.expected(past.mean) - past.mean,
            past.bias(),
            (fresh * surprises).sum() / (fresh.sum() + PRIOR_SURPRISE),
            np.sqrt((spread + PRIOR_SURPRISE * PRIOR_SPREAD**2) / (events + PRIOR_SURPRISE)) - PRIOR_SPREAD,
        ),
        np.float32,
    )


class OwnGrades(NamedTuple):
    """What a user's own past tells of candidates."""

    regressed: Numbers  # (candidates,) see `regressed_surprise`
    similar: Numbers  # (candidates,) see `similar_surprise`


def regressed_surprise(alike: Numbers, candidates_alike: Numbers, surprises: Numbers) -> Numbers:
    """The surprise to expect at each candidate, by Gaussian process regression (Rasmussen and Williams, 2006, equation
    2.25): many past items of one author tell little more than a few do, which a weighted mean would not know.

    Args:
        alike: (history, history) prior covariance of the past items' surprises, without their noise.
        candidates_alike: (candidates, history) that of candidates with past items.
        surprises: (history,) see `PastGrades.surprises`.

    Returns:
        (candidates,).
    """
    expected: Numbers = candidates_alike @ np.linalg.solve(alike + np.eye(len(surprises)), surprises)
    return expected


def similar_surprise(cosines: NDArray[np.floating], surprises: Numbers) -> Numbers:
    """The mean surprise of the past items near each candidate, shrunk towards 0: (candidates,).

    Args:
        cosines: (candidates, history) of embeddings; 0 where there is none.
        surprises: (history,) see `PastGrades.surprises`.
    """
    weights = np.maximum(cosines, 0.0) ** SIMILAR_POWER
    mean: Numbers = weights @ surprises / (weights.sum(axis=1) + PRIOR_SHARED)
    return mean


def candidate_grades(items: Counted, shared: SharedGrades, titles: Counted, own: OwnGrades, mean: float) -> Features:
    """The other `GRADED_FEATURES`: (candidates, 7).

    Args:
        items: (candidates,) each: of the candidates themselves.
        shared: what they have in common with other items.
        titles: (candidates,) each: of all items with the head of the candidate's title, itself included.
        own: what the user's past tells of them.
        mean: of all interactions with any item.
    """
    telling, known = telling_and_known(shared.there, shared.of_others.impressions)
    apart = shared.of_others.expected(mean) - mean
    features = np.zeros((len(shared.there), len(GRADED_FEATURES) - USER_FEATURES), np.float32)
    attribute = (known * apart).sum(axis=1) / np.maximum(known.sum(axis=1), 1e-6)
    features[:, 0] = items.expected(mean + attribute) - mean
    features[:, 1] = attribute
    features[:, 2] = (telling * shared.surprise).sum(axis=1) / ((telling * shared.met).sum(axis=1) + PRIOR_SHARED)
    features[:, 3] = titles.expected(mean + attribute) - mean
    features[:, 4] = np.log1p(np.maximum(titles.impressions - items.impressions, 0.0))
    features[:, 5] = own.regressed
    features[:, 6] = own.similar
    return features
