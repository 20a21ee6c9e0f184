"""The statistics of a prompt in plain words: what each number counts, and its value as a person would say it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from models.features import FEATURES, PRIOR_IMPRESSIONS, PRIOR_RATE, RECENT_HALF_LIFE


def in_words(statistics: Sequence[float]) -> list[tuple[str, str]]:
    """What each statistic is, with its value.

    Args:
        statistics: as the model reads them, the leading `FEATURES`: rates as logits, counts as logarithms.
    """
    return [(_WORDS[name][0], _WORDS[name][1](float(value))) for name, value in zip(FEATURES, statistics, strict=False)]


def _plain(value: float) -> str:
    return f"{value:+.3f}"


def _rate(logit: float) -> str:
    return f"{1 / (1 + math.exp(-logit)):.1%}"


def _count(logarithm: float) -> str:
    return f"{round(math.expm1(logarithm)):,}"


def _yes(value: float) -> str:
    return "yes" if value else "no"


_SHRUNK: Final = f"with {PRIOR_IMPRESSIONS:.0f} imagined impressions at {PRIOR_RATE:.0%}"
_WORDS: Final[Mapping[str, tuple[str, Callable[[float], str]]]] = {
    "affinity": ("product of the user's and the item's embedding", _plain),
    "cosine": ("cosine between the two, from -1 to 1", _plain),
    "user_rate": (f"share of impressions that the user clicked, {_SHRUNK}", _rate),
    "item_rate": (f"share of the item's impressions that were clicked, {_SHRUNK}", _rate),
    "user_count": ("impressions of the user", _count),
    "item_count": ("impressions of the item", _count),
    "user_known": ("the user has been seen before", _yes),
    "item_known": ("the item has been shown before", _yes),
    "past_vote": ("clicks minus misses among the user's similar past items, weighted by similarity, -1 to 1", _plain),
    "past_surprise": ("how much more the user clicked those than others do, -1 to 1", _plain),
    "past_similarity": ("similarity of the most similar past item", _plain),
    "past_known": ("the user has past items to compare with", _yes),
    "neighbour_vote": ("clicks minus misses of similar users on the candidate, weighted, -1 to 1", _plain),
    "neighbour_count": ("similar users who were shown the candidate", _count),
    "similar_item_rate": (f"share of the similar items' impressions that were clicked, {_SHRUNK}", _rate),
    "history_surprise": ("how much more the user clicks than others do on the same items, -1 to 1", _plain),
    "recent_surprise": (
        f"the same, the latest first: each event halves in weight after {RECENT_HALF_LIFE:.0f}",
        _plain,
    ),
    "recent_rate": (f"share of the latest events that were clicks, {_SHRUNK}", _rate),
    "recent_count": ("latest events that these count", _count),
    "attribute_rate": (
        "share of impressions clicked of other items with its values, rare ones more",
        _rate,
    ),
    "attribute_count": ("impressions of such items, per value", _count),
    "attribute_surprise": ("how much more the user clicked such items than others do, -1 to 1", _plain),
    "attribute_history": ("the user's own impressions of such items, per value in common", _count),
    "word_rate": ("share of impressions clicked of other items with its title's words, rare ones more", _rate),
    "word_count": ("impressions of those items, per word", _count),
    "word_surprise": ("how much more the user clicked those items than others do, -1 to 1", _plain),
    "word_history": ("the user's own impressions of those items, per word in common", _count),
    "user_grade": ("how far the user's mean grade lies from that of all, -1 to 1", _plain),
    "history_grade": ("how much better the user grades than others do on the same items, -1 to 1", _plain),
    "recent_grade": (f"the same, each event halving in weight after {RECENT_HALF_LIFE:.0f} later ones", _plain),
    "grade_spread": ("standard deviation of the user's grades, above the usual 0.25", _plain),
    "item_grade": ("how far the item's mean grade lies from that of all, -1 to 1", _plain),
    "attribute_grade": ("how far that of other items with its values lies from it, rare ones more", _plain),
    "attribute_grade_surprise": ("how much better than usual the user grades such items, -1 to 1", _plain),
    "title_grade": ("how far the mean grade of items with the same title's head lies from that of all", _plain),
    "title_count": ("impressions of the other items with it", _count),
    "past_grade": ("how much better the user will grade it, by a regression on their past, -1 to 1", _plain),
    "user_rate_counted": ("the user's rate (as logarithm of odds) times the logarithm of their impressions", _plain),
    "item_rate_counted": ("the item's rate (as logarithm of odds) times the logarithm of its impressions", _plain),
    "user_rate_spread": ("the user's rate (as logarithm of odds) times the spread of their grades", _plain),
    "similar_grade": ("how much better the user graded the items nearest in embedding, -1 to 1", _plain),
}
