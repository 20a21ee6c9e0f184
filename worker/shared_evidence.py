"""Finds how what candidates share with other items fares: with everyone, and with one user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.evidence import AttributeEvidence, Vector
from models.features import PRIOR_IMPRESSIONS, PRIOR_RATE, Features, shared_features
from worker.state_store.columns import Rows
from worker.state_store.item_columns import ItemColumns
from worker.state_store.rows import UNKNOWN_ROW
from worker.state_store.shared_values import NO_VALUE, SharedValues

_LARGEST_COUNT: Final = 2**62
"""Beyond it sums of counts may have wrapped around."""


class SharedEvidence(NamedTuple):
    """What one candidate shares with other items."""

    features: Vector | None = None
    """(len(SHARED_FEATURES),) None where nothing is known of the candidate."""
    attributes: Sequence[AttributeEvidence] = ()
    """The values of its attributes, in the order of the catalogue."""


def shared_evidence(
    items: ItemColumns, candidate_rows: Rows, past_rows: Rows, past_positive: NDArray[np.bool_]
) -> list[SharedEvidence]:
    """What candidates share with other items, in the order of the candidates.

    Args:
        items: the tables.
        candidate_rows: (candidates,) UNKNOWN_ROW where nothing is known.
        past_rows: (history,) the items of the user's history.
        past_positive: (history,) whether they were clicked.
    """
    known = np.flatnonzero(candidate_rows != UNKNOWN_ROW)
    rows = candidate_rows[known]
    outcomes = _outcomes(items, past_rows, past_positive)
    attributes = _Asked.of(items.attributes, items, rows, past_rows, outcomes)
    words = _Asked.of(items.title_words, items, rows, past_rows, outcomes, first=1)
    features = np.concatenate([attributes.features(), words.features()], axis=1)
    found = [SharedEvidence()] * len(candidate_rows)
    for at, (candidate, told) in enumerate(zip(known.tolist(), attributes.told(items.attributes), strict=True)):
        found[candidate] = SharedEvidence(features[at], told)
    return found


def _outcomes(items: ItemColumns, past_rows: Rows, past_positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of each past interaction (history, 3): 1, whether it was a click, and how far that surprises."""
    counts = items.counts[past_rows]
    expected = (counts[:, 1] + PRIOR_IMPRESSIONS * PRIOR_RATE) / (counts[:, 0] + PRIOR_IMPRESSIONS)
    return np.stack([np.ones(len(past_rows)), past_positive, past_positive - expected], axis=1)


class _Asked:
    """The values of the candidates, as far to the right as any has one.

    Args:
        values: (candidates, values) NO_VALUE where there are fewer.
        of_others: (candidates, values, impressions and positives) of all other items with the value.
        with_user: (candidates, values, impressions, positives and surprise) of the user with the value.
    """

    def __init__(self, values: NDArray[np.int32], of_others: NDArray[np.int64], with_user: NDArray[np.float64]) -> None:
        self.values = values
        self.of_others = of_others
        self.with_user = with_user

    @classmethod
    def of(
        cls,
        shared: SharedValues,
        items: ItemColumns,
        rows: Rows,
        past_rows: Rows,
        outcomes: NDArray[np.float64],
        first: int = 0,
    ) -> _Asked:
        values = shared.of_items[rows, first:]  # of a title the first is its head, which is no word
        values = values[:, : int((values != NO_VALUE).sum(axis=1).max(initial=0))]
        # Of the other items alone: the candidate's own counts are evidence of their own.
        of_others = shared.counts[values, :2] - items.counts[rows, None, :2]
        of_others = np.clip(of_others, 0, _LARGEST_COUNT)
        return cls(values, of_others, shared.sums_by_value(values, past_rows, outcomes))

    def features(self) -> Features:
        """(candidates, 4)."""
        return shared_features(self.values != NO_VALUE, self.of_others, self.with_user)

    def told(self, shared: SharedValues) -> list[list[AttributeEvidence]]:
        """Each candidate's values one by one."""
        parts = zip(self.values.tolist(), self.of_others.tolist(), self.with_user.tolist(), strict=True)
        return [
            [
                AttributeEvidence(*shared.name_of(value), shown, clicked, int(met), int(user_clicked), surprise)
                for value, (shown, clicked), (met, user_clicked, surprise) in zip(*of_one, strict=True)
                if value != NO_VALUE
            ]
            for of_one in parts
        ]
