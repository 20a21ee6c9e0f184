"""Gathers the grades that a user gave, and those of the candidates and of what they share with other items."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.features import GRADED_FEATURES, PRIOR_RATE, Features
from models.graded_features import (
    ATTRIBUTES_VARIANCE,
    BIAS_VARIANCE,
    MOST_REGRESSED,
    USER_FEATURES,
    WORDS_VARIANCE,
    Counted,
    OwnGrades,
    PastGrades,
    SharedGrades,
    candidate_grades,
    regressed_surprise,
    similar_surprise,
    user_grades,
)
from schemas.messages import FULL_GRADE
from worker.item_likeness import cosines_of_values
from worker.state_store.columns import Rows, normalised
from worker.state_store.item_columns import ItemColumns
from worker.state_store.rows import UNKNOWN_ROW
from worker.state_store.shared_values import COUNTS, NO_VALUE

_LARGEST: Final = 2**62
"""Beyond it sums of counts may have wrapped around."""
_IMAGINED: Final = 2.0
"""Interactions at the beginning of the stream, of mean grade `PRIOR_RATE`."""


class GradedPast(NamedTuple):
    """A user's history and counts, as the tables hold them."""

    rows: Rows  # (history,) of the items, oldest first
    grades: NDArray[np.uint8]  # (history,)
    counts: NDArray[np.int64]  # (COUNTS,) of the user

    @classmethod
    def unknown(cls) -> GradedPast:
        """Of a user of whom nothing is known."""
        return cls(np.empty(0, np.int64), np.empty(0, np.uint8), np.zeros(COUNTS, np.int64))


def graded_evidence(items: ItemColumns, candidate_rows: Rows, past: GradedPast) -> Features:
    """`GRADED_FEATURES` of the candidates, (candidates, features).

    Args:
        items: the tables.
        candidate_rows: (candidates,) UNKNOWN_ROW where nothing is known: only the user counts there.
        past: of the user.
    """
    total = _counted(items.totals)
    mean = float((total.grades + _IMAGINED * PRIOR_RATE) / (total.impressions + _IMAGINED))
    theirs = PastGrades(past.grades / FULL_GRADE, _counted(items.counts[past.rows]), _counted(past.counts), mean)
    features = np.zeros((len(candidate_rows), len(GRADED_FEATURES)), np.float32)
    features[:, :USER_FEATURES] = user_grades(theirs)
    known = np.flatnonzero(candidate_rows != UNKNOWN_ROW)
    rows = candidate_rows[known]
    shared = _shared(items, rows, past.rows, theirs)
    own = _own(items, rows, past.rows, theirs.surprises())
    candidates = _counted(items.counts[rows])
    features[known, USER_FEATURES:] = candidate_grades(candidates, shared, _titles(items, rows), own, mean)
    return features


def _counted(counts: NDArray[np.int64]) -> Counted:  # counts: (…, COUNTS)
    """Clipped, so that neither a count that has wrapped around nor one of foreign making leaves the range of grades."""
    impressions = np.clip(counts[..., 0], 0, _LARGEST).astype(np.float64)
    return Counted(impressions, np.clip(counts[..., 2] / FULL_GRADE, 0.0, impressions))


def _shared(items: ItemColumns, rows: Rows, past_rows: Rows, past: PastGrades) -> SharedGrades:
    """What candidates in `rows` share with other items, by the values of their attributes."""
    attributes = items.attributes
    values = attributes.of_items[rows]
    values = values[:, : int((values != NO_VALUE).sum(axis=1).max(initial=0))]
    against_bias = np.stack([np.ones(len(past_rows)), past.surprises() - past.bias()], axis=1)
    with_user = attributes.sums_by_value(values, past_rows, against_bias)
    return SharedGrades(
        there=values != NO_VALUE,
        of_others=_counted(attributes.counts[values] - items.counts[rows, None]),
        met=with_user[..., 0],
        surprise=with_user[..., 1],
    )


def _titles(items: ItemColumns, rows: Rows) -> Counted:
    """Of all items with the head of each one's title; of itself where it has none."""
    heads = items.title_words.of_items[rows, 0]
    counts = items.counts[rows].copy()
    counts[heads != NO_VALUE] = items.title_words.counts[heads[heads != NO_VALUE]]
    return _counted(counts)


def _own(items: ItemColumns, rows: Rows, past_rows: Rows, surprises: NDArray[np.float64]) -> OwnGrades:
    """What the user's past tells of items in `rows`."""
    directions = normalised(items.vectors(past_rows))
    similar = similar_surprise(normalised(items.vectors(rows)) @ directions.T, surprises)
    past_rows, surprises = past_rows[-MOST_REGRESSED:], surprises[-MOST_REGRESSED:]
    all_rows = np.concatenate([past_rows, rows])
    attributes = cosines_of_values(items.attributes, all_rows, len(past_rows))
    words = cosines_of_values(items.title_words, all_rows, len(past_rows), first=1)
    alike = BIAS_VARIANCE + ATTRIBUTES_VARIANCE * attributes + WORDS_VARIANCE * words
    regressed = regressed_surprise(alike[: len(past_rows)], alike[len(past_rows) :], surprises)
    return OwnGrades(regressed, similar)
