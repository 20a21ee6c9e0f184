"""A built-in synthetic data set with a fixed seed: items with titles, users with tastes, impressions with clicks.

Everything that the product uses carries signal. Titles and genres tell the topic of an item; past clicks tell a user's
taste; users of the same circle share a taste, so similar users help; items differ in quality and users in how readily
they click, so counts help; and every second user changes circle midway, so fresh interactions help most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from event_data.event_log import EventLog
from schemas.messages import Interaction, Item

START_MS: Final = 1_735_689_600_000
"""1 January 2025."""
DAY_MS: Final = 86_400_000

WORDS: Final = {
    "space": (("Silent", "Distant", "Orbital", "Stellar", "Cold"), ("Galaxy", "Station", "Comet", "Signal", "Moon")),
    "crime": (("Crooked", "Stolen", "Guilty", "Hidden", "Final"), ("Alibi", "Witness", "Heist", "Verdict", "Motive")),
    "romance": (("Tender", "Secret", "Endless", "Summer", "Paper"), ("Kiss", "Letter", "Wedding", "Promise", "Heart")),
    "cooking": (("Simple", "Smoky", "Golden", "Rustic", "Sweet"), ("Kitchen", "Bakery", "Harvest", "Pantry", "Oven")),
    "history": (("Ancient", "Fallen", "Royal", "Iron", "Lost"), ("Empire", "Castle", "Dynasty", "Legion", "Throne")),
    "travel": (("Wandering", "Coastal", "Northern", "Open", "High"), ("Road", "Harbour", "Island", "Trail", "Desert")),
    "music": (("Electric", "Blue", "Broken", "Midnight", "Loud"), ("Melody", "Chorus", "Rhythm", "Vinyl", "Echo")),
    "nature": (("Wild", "Quiet", "Deep", "Frozen", "Green"), ("River", "Forest", "Glacier", "Meadow", "Reef")),
}
"""By genre: first and last words of its titles."""
SERIES: Final = ("", "", "Stories", "Rising", "Revisited", "Diaries", "Club", "Nights")

Array = NDArray[np.float64]

NAME: Final = "synthetic"
"""Of the event log, and so of what is trained on it."""


@dataclass(frozen=True, slots=True)
class SyntheticSize:
    """Size of the data set. The number of interactions is `sessions` times `shown`, the items shown per session."""

    users: int = 400
    items: int = 300
    sessions: int = 2_600
    shown: int = 8
    days: int = 30
    circles: int = 6


@dataclass(frozen=True, slots=True)
class _World:
    """The hidden variables that determine clicks."""

    genres: Array  # (items, genres) shares that add up to 1
    quality: Array  # (items,)
    popularity: Array  # (items,)
    released: Array  # (items,) share of the period that has passed when the item appears
    tastes: Array  # (users, 2, genres) before and after the change
    changes: Array  # (users,) share of the period at which taste changes; 2 for never
    leniency: Array  # (users,)
    joined: Array  # (users,) share of the period that has passed when the user appears
    activity: Array  # (users,)


def synthetic_log(size: SyntheticSize | None = None, seed: int = 7) -> EventLog:
    """The data set; the same size and seed always give the same log."""
    size = size or SyntheticSize()
    random = np.random.default_rng(seed)
    world = _make_world(size, random)
    drawn = [
        impression
        for session, moment in enumerate(np.sort(random.random(size.sessions)))
        for impression in _make_session(world, size, session, moment, random)
    ]
    # Sessions overlap: in the log their events alternate.
    drawn.sort(key=lambda impression: impression[0].event_time_ms)
    return EventLog(
        NAME,
        _make_items(world.genres, random),
        interactions=[interaction for interaction, _ in drawn],
        click_probabilities=[probability for _, probability in drawn],
    )


def _make_world(size: SyntheticSize, random: np.random.Generator) -> _World:
    genres = len(WORDS)
    circles = np.where(random.random((size.circles, genres)) < 0.35, 2.5, -1.5)
    membership = np.stack([random.permutation(size.circles)[:2] for _ in range(size.users)])
    item_genres = np.zeros((size.items, genres))
    for shares in item_genres:
        main, other = random.permutation(genres)[:2]
        shares[main], shares[other] = 0.75, 0.25
    return _World(
        genres=item_genres,
        quality=random.normal(0.0, 0.7, size.items),
        popularity=random.pareto(2.0, size.items) + 0.1,
        released=_some_later(size.items, 0.3, size.shown, random),
        tastes=circles[membership] + random.normal(0.0, 0.4, (size.users, 2, genres)),
        changes=np.where(random.random(size.users) < 0.5, random.uniform(0.3, 0.9, size.users), 2.0),
        leniency=random.normal(-1.3, 0.6, size.users),
        joined=_some_later(size.users, 0.5, 1, random),
        activity=random.gamma(2.0, 1.0, size.users),
    )


def _some_later(count: int, share: float, always: int, random: np.random.Generator) -> Array:
    """Times of appearance: most at the start, a `share` over the whole period, the first `always` at the start."""
    moments = np.where(random.random(count) < share, random.random(count), 0.0)
    moments[:always] = 0.0
    return moments


def _make_session(
    world: _World, size: SyntheticSize, session: int, moment: float, random: np.random.Generator
) -> list[tuple[Interaction, float]]:
    """One visit of a user, as impressions and the probability of each click: half of the items shown are drawn by
    popularity, half by popularity and taste.
    """
    user = random.choice(len(world.joined), p=_shares(world.activity * (world.joined <= moment)))
    taste = world.tastes[user, int(moment >= world.changes[user])]
    liking = world.genres @ taste  # (items,)
    chances = world.popularity * (world.released <= moment)
    chances = _shares(chances) + _shares(chances * np.exp(0.5 * liking))
    shown = random.choice(len(chances), size.shown, replace=False, p=_shares(chances))
    click_chances = 1.0 / (1.0 + np.exp(-(liking + world.quality + world.leniency[user])[shown]))
    clicks = random.random(size.shown) < click_chances
    start_ms = START_MS + int(moment * size.days * DAY_MS)
    return [
        (
            Interaction(
                event_id=f"s{session}-{position}",
                user_id=f"user-{user}",
                item_id=f"item-{item}",
                kind="click" if clicked else "impression",
                event_time_ms=start_ms + position * 15_000,
                positive=bool(clicked),
            ),
            float(probability),
        )
        for position, (item, clicked, probability) in enumerate(zip(shown, clicks, click_chances, strict=True))
    ]


def _shares(weights: Array) -> Array:
    return np.asarray(weights / weights.sum())


def _make_items(genres: Array, random: np.random.Generator) -> list[Item]:
    names = list(WORDS)
    items = []
    for row, shares in enumerate(genres):
        main, other = np.argsort(-shares)[:2]
        beginnings, endings = WORDS[names[main]]
        title = f"{random.choice(beginnings)} {random.choice(endings)} {random.choice(SERIES)}".strip()
        attributes = {"genres": f"{names[main]}, {names[other]}"}
        items.append(Item(item_id=f"item-{row}", title=title, attributes=attributes))
    return items
