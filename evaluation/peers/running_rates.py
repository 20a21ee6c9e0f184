"""Click rates as of each event, of its user, its item and its item's attributes: a plain reference without graph or
retrieval, one event after the other.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.messages import Interaction, Item

COUNT_FEATURES: Final = ("user_rate", "user_count", "item_rate", "item_count")
ATTRIBUTE_FEATURES: Final = ("attribute_rate", "attribute_count", "user_attribute_lift", "user_attribute_count")
PRIOR_WITH_USER: Final = 2.0
"""Imagined impressions at the user's own rate that each of their rates with an attribute starts with."""
_BETWEEN_VALUES: Final = re.compile(r"[,;|]")

Floats = NDArray[np.float64]
Outcome = Callable[[Interaction], float]


def clicked(event: Interaction) -> float:
    """1 for a click."""
    return float(bool(event.positive))


def graded(event: Interaction) -> float:
    """The event's grade; where it has none, as if it were one for a click and none for the rest."""
    return clicked(event) if event.grade is None else event.grade


class RunningRates:
    """Rates as logits, counts as logarithms, of all events added so far.

    The user's, the item's and each attribute value's rate are shrunk towards the overall rate, and a user's rate with
    an attribute value towards the user's own. Of several values (genres) the mean counts.

    Args:
        items: the catalogue.
        prior_weight: imagined impressions at the overall rate that each rate starts with.
        outcome: what an event adds to its rates, from 0 to 1: whether it was a click, or its grade.
    """

    def __init__(self, items: Sequence[Item], prior_weight: float, outcome: Outcome) -> None:
        self._prior_weight = prior_weight
        self._outcome = outcome
        self._values = {item.item_id: values_of(item.attributes) for item in items}
        self._counts: defaultdict[Hashable, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def features(self, user_id: str, item_id: str) -> list[float]:
        """`COUNT_FEATURES`, then `ATTRIBUTE_FEATURES`, which are 0 for an item without attributes."""
        user_rate, of_user = self._rate("user", user_id)
        item_rate, of_item = self._rate("item", item_id)
        features = [_logit(user_rate), math.log1p(of_user), _logit(item_rate), math.log1p(of_item)]
        values = self._values.get(item_id, ())
        if not values:
            return [*features, *[0.0] * len(ATTRIBUTE_FEATURES)]
        overall = [self._rate("value", value) for value in values]
        with_user = [self._known("both", (user_id, value)) for value in values]
        lifts = [_logit(_shrunk(clicks, shown, user_rate, PRIOR_WITH_USER)) for clicks, shown in with_user]
        return [
            *features,
            _mean([_logit(rate) for rate, _ in overall]),
            math.log1p(_mean([shown for _, shown in overall])),
            _mean(lifts) - _logit(user_rate),
            math.log1p(_mean([shown for _, shown in with_user])),
        ]

    def add(self, event: Interaction) -> None:
        """Learn one event, after its features were taken."""
        values = self._values.get(event.item_id, ())
        keys: list[Hashable] = ["all", ("user", event.user_id), ("item", event.item_id)]
        keys += [("value", value) for value in values]
        keys += [("both", (event.user_id, value)) for value in values]
        for key in keys:
            counts = self._counts[key]
            counts[0] += self._outcome(event)
            counts[1] += 1.0

    def _rate(self, kind: str, key: Hashable) -> tuple[float, float]:
        """The shrunk rate, and the impressions."""
        clicks, shown = self._known(kind, key)
        of_all, shown_in_all = self._counts["all"]
        overall = _shrunk(of_all, shown_in_all, 0.5, 1.0)
        return _shrunk(clicks, shown, overall, self._prior_weight), shown

    def _known(self, kind: str, key: Hashable) -> Sequence[float]:
        """Clicks and impressions; reading makes no entry."""
        return self._counts.get((kind, key), (0.0, 0.0))


def running_rates(
    items: Sequence[Item], interactions: Sequence[Interaction], prior_weight: float, outcome: Outcome = clicked
) -> Floats:
    """Features (interactions, COUNT_FEATURES + ATTRIBUTE_FEATURES) of each event, as of all events before it."""
    rates = RunningRates(items, prior_weight, outcome)
    features = np.zeros((len(interactions), len(COUNT_FEATURES) + len(ATTRIBUTE_FEATURES)))
    for row, event in zip(features, interactions, strict=True):
        row[:] = rates.features(event.user_id, event.item_id)
        rates.add(event)
    return features


def values_of(attributes: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The distinct values of all attributes, with their attribute's name: `Comedy, Drama` holds two."""
    pieces = (
        (name, piece.strip().casefold()) for name in attributes for piece in _BETWEEN_VALUES.split(attributes[name])
    )
    return tuple(dict.fromkeys((name, piece) for name, piece in pieces if piece))


def _shrunk(clicks: float, shown: float, towards: float, weight: float) -> float:
    return (clicks + weight * towards) / (shown + weight)


def _logit(rate: float) -> float:
    return math.log(rate / (1.0 - rate))


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
