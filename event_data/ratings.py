"""Turns the ratings of a data set into interactions in time order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from schemas.messages import Interaction

LATEST_MS: Final = 4_102_444_800_000
"""2100: seconds beyond it are another unit."""


class Scale(NamedTuple):
    """The lowest and the highest rating that can be given."""

    lowest: float
    highest: float

    def grade(self, rating: float) -> float:
        """Where a rating stands between the two, from 0 to 1; one that lies outside counts as the nearer end."""
        return min(max((rating - self.lowest) / (self.highest - self.lowest), 0.0), 1.0)


FIVE_STARS: Final = Scale(1.0, 5.0)


class Rating(NamedTuple):
    """A user's rating of an item."""

    user_id: str
    item_id: str
    value: float
    time_ms: int


def checked_rating(user_id: str, item_id: str, value: float, time_ms: int) -> Rating:
    """A rating with valid fields.

    Raises:
        ValueError: an id is empty, the value is not a number, or the time is before 1970 or after 2100.
    """
    if not user_id or not item_id:
        raise ValueError("empty user or item id")
    if value != value:  # noqa: PLR0124 - NaN alone differs from itself
        raise ValueError("the rating is not a number")
    if time_ms < 0:
        raise ValueError("the time is before 1970")
    if time_ms > LATEST_MS:
        raise ValueError("the time is after 2100: are these milliseconds where seconds are expected?")
    return Rating(user_id, item_id, value, time_ms)


def name_with_click(name: str, click_rating: float, own: float) -> str:
    """The data set's name, with the rating from which on it counts clicks unless that is the data set's own.

    A trained bundle is told apart by the name of its log, and another meaning of a click is another log.
    """
    return name if click_rating == own else f"{name}, click at {click_rating:.15g}"


def in_time_order(
    name: str, ratings: Iterable[tuple[int, Rating]], click_rating: float, scale: Scale
) -> list[Interaction]:
    """Interactions of numbered ratings, stably sorted by time; a rating of at least `click_rating` is a click, and its
    place on the scale is its grade.
    """
    interactions = [
        Interaction(
            event_id=f"{name}-{number}",
            user_id=rating.user_id,
            item_id=rating.item_id,
            kind="rating",
            event_time_ms=rating.time_ms,
            positive=rating.value >= click_rating,
            grade=scale.grade(rating.value),
        )
        for number, rating in ratings
    ]
    interactions.sort(key=lambda interaction: interaction.event_time_ms)
    return interactions
