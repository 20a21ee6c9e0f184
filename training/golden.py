"""Invents the golden requests of a bundle: users that nobody is, with histories drawn from the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from models.features import GRADED_FEATURES, SHARED_FEATURES
from models.golden import GoldenCandidate, GoldenItem, GoldenPast, GoldenRequest
from models.text import item_text
from schemas.messages import Item

REQUESTS: Final = 4
CANDIDATES: Final = 4
HISTORY: Final = 12
NEIGHBOURS: Final = 3
MOST_IMPRESSIONS: Final = 200
NEWCOMER: Final = GoldenItem("an item that is in no catalogue")


def invented_requests(items: Sequence[Item], seed: int) -> tuple[GoldenRequest, ...]:
    """Requests of users with a history, then one of a user and an item of whom nothing is known.

    Args:
        items: the catalogue.
        seed: of the draw; the same items and seed give the same requests.
    """
    random = Random(seed)
    usual = [_request(items, random) for _ in range(REQUESTS)] if items else []
    return (*usual, GoldenRequest((), (GoldenCandidate(NEWCOMER),)))


def _request(items: Sequence[Item], random: Random) -> GoldenRequest:
    drawn = [_item(items[random.randrange(len(items))], random) for _ in range(HISTORY + CANDIDATES)]
    history = tuple(GoldenPast(item, random.random() < 0.5) for item in drawn[:HISTORY])
    candidates = tuple(
        GoldenCandidate(
            item,
            tuple(random.random() < 0.5 for _ in range(NEIGHBOURS)),
            tuple(round(random.uniform(-1.0, 1.0), 3) for _ in SHARED_FEATURES),
            tuple(round(random.uniform(-1.0, 1.0), 3) for _ in GRADED_FEATURES),
        )
        for item in drawn[HISTORY:]
    )
    return GoldenRequest(history, candidates)


def _item(item: Item, random: Random) -> GoldenItem:
    impressions = random.randint(0, MOST_IMPRESSIONS)
    return GoldenItem(
        item.item_id, item_text(item.title, item.attributes), impressions, positives=random.randint(0, impressions)
    )
