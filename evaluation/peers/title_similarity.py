"""How similar a candidate's title is to those of what the user clicked, and did not click, before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.messages import Interaction

NEAREST: Final = (1, 3, 10)
"""Numbers of most similar past titles whose mean similarity is tried."""
MOST_PAST: Final = 1_000
"""Latest events of a user that are compared with."""
_AT_ONCE: Final = 500
"""Candidates of a user that are compared in one product."""

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


def title_similarities(
    interactions: Sequence[Interaction],
    clicked: NDArray[np.bool_],
    titles: Vectors,
    rows: NDArray[np.int64],
    nearest: Sequence[int] = NEAREST,
) -> Floats:
    """(len(nearest), events, 2): the mean similarity of the n most similar titles among those clicked before, and among
    those not clicked, each as of its event. Missing ones count as 0: a short past is less similar.

    Args:
        interactions: all events, in time order.
        clicked: (events,)
        titles: (titles, d) of length one, or zero for no title.
        rows: (events,) the row of each event's title.
        nearest: the numbers n of most similar titles.
    """
    by_user: defaultdict[str, list[int]] = defaultdict(list)
    for place, event in enumerate(interactions):
        by_user[event.user_id].append(place)
    features = np.zeros((len(nearest), len(interactions), 2))
    for events in by_user.values():
        places = np.array(events)
        for start in range(0, len(places), _AT_ONCE):
            asked = places[start : start + _AT_ONCE]
            past = places[max(0, start - MOST_PAST) : start + len(asked)]
            similar = titles[rows[asked]] @ titles[rows[past]].T  # (asked, past)
            earlier = (past[None] < asked[:, None]) & (past[None] >= _oldest(places, start, len(asked))[:, None])
            for column, wanted in enumerate((clicked[past], ~clicked[past])):
                top = _top(np.where(earlier & wanted, similar, 0.0), max(nearest))
                for way, number in enumerate(nearest):
                    features[way, asked, column] = top[:, :number].sum(axis=1) / number
    return features


def _oldest(places: NDArray[np.int64], start: int, asked: int) -> NDArray[np.int64]:
    """(asked,) the place of the oldest event that each candidate is compared with."""
    return places[np.maximum(0, np.arange(start, start + asked) - MOST_PAST)]


def _top(values: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """The largest of each row, the largest first (rows, number), none below 0; zeros fill up."""
    kept = values if values.shape[1] <= number else np.partition(values, -number, axis=1)[:, -number:]
    top = np.zeros((len(values), number), np.float32)
    top[:, : kept.shape[1]] = -np.sort(-np.maximum(kept, 0.0), axis=1)
    return top
