"""A built-in synthetic data set with a fixed seed: items with titles, users with tastes, impressions with clicks.

Everything that the product uses carries signal. Titles are two words, each of a dark or a bright mood, and what a user
likes above all is in their combination: most want words that agree, some want them to clash. Genres tell the topic;
past clicks tell a user's taste; users of the same circle share a taste, so similar users help; items differ in quality
and users in how readily they click, so counts help. Most items are new and gone after a few days, so words must speak
for them; and every second user changes circle midway, so fresh interactions help most.
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

GENRES: Final = ("space", "crime", "romance", "cooking", "history", "travel", "music", "nature")
FIRST_WORDS: Final = (
    ("Bitter", "Broken", "Burning", "Crooked", "Fallen", "Haunted", "Hollow", "Lost", "Rusty", "Sunken"),
    ("Bright", "Fresh", "Gentle", "Golden", "Lucky", "Merry", "Silver", "Sunny", "Sweet", "Tender"),
)
LAST_WORDS: Final = (
    ("Abyss", "Ambush", "Ashes", "Exile", "Grave", "Plague", "Ruin", "Siege", "Storm", "Wolf"),
    ("Bakery", "Garden", "Harbour", "Kitchen", "Lantern", "Letter", "Meadow", "Melody", "Picnic", "Wedding"),
)
"""Of titles, by mood: dark, bright."""

Array = NDArray[np.float64]

NAME: Final = "synthetic-titles"
"""Of the event log, and so of what is trained on it: another world needs another name."""


@dataclass(frozen=True, slots=True)
class SyntheticSize:
    """Size of the data set. The number of interactions is `sessions` times `shown`, the items shown per session."""

    users: int = 1_100
    items: int = 2_400
    sessions: int = 4_500
    shown: int = 8
    days: int = 30
    circles: int = 8


@dataclass(frozen=True, slots=True)
class _World:
    """The hidden variables that determine clicks. What belongs to a user has a row before and one after the change."""

    genres: Array  # (items, genres) shares that add up to 1
    moods: Array  # (items, 2) of first and last word: -1 dark, 1 bright
    quality: Array  # (items,)
    popularity: Array  # (items,)
    released: Array  # (items,) share of the period that has passed when the item appears
    withdrawn: Array  # (items,) and when it is gone
    tastes: Array  # (users, 2, genres)
    brightness: Array  # (users, 2, 2) log-odds for a bright first and a bright last word
    harmony: Array  # (users, 2) log-odds for words of the same mood
    changes: Array  # (users,) share of the period at which taste changes; 2 for never
    leniency: Array  # (users,)
    joined: Array  # (users,) share of the period that has passed when the user appears
    activity: Array  # (users,)

    def liking(self, user: int, moment: float) -> Array:
        """Log-odds (items,) of a user's taste alone."""
        now = int(moment >= self.changes[user])
        agree = self.moods[:, 0] * self.moods[:, 1]
        return np.asarray(
            self.genres @ self.tastes[user, now]
            + self.moods @ self.brightness[user, now]
            + agree * self.harmony[user, now]
        )


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
        _make_items(world, random),
        interactions=[interaction for interaction, _ in drawn],
        click_probabilities=[probability for _, probability in drawn],
    )


def _make_world(size: SyntheticSize, random: np.random.Generator) -> _World:
    genres = len(GENRES)
    circles = random.normal(0.0, 0.8, (size.circles, genres))
    harmony = np.where(np.arange(size.circles) % 4 < 3, 1.6, -1.6)
    membership = np.stack([random.permutation(size.circles)[:2] for _ in range(size.users)])
    item_genres = np.zeros((size.items, genres))
    for shares in item_genres:
        main, other = random.permutation(genres)[:2]
        shares[main], shares[other] = 0.75, 0.25
    released = _some_later(size.items, 0.9, size.shown, random)
    return _World(
        genres=item_genres,
        moods=random.choice([-1.0, 1.0], (size.items, 2)),
        quality=random.normal(0.0, 0.5, size.items),
        popularity=random.pareto(2.0, size.items) + 0.1,
        released=released,
        withdrawn=_withdrawn(released, size.shown, random),
        tastes=circles[membership] + random.normal(0.0, 0.3, (size.users, 2, genres)),
        brightness=random.normal(0.5, 0.5, (size.users, 2, 2)),
        harmony=harmony[membership] + random.normal(0.0, 0.3, (size.users, 2)),
        changes=np.where(random.random(size.users) < 0.5, random.uniform(0.3, 0.9, size.users), 2.0),
        leniency=random.normal(-0.6, 0.5, size.users),
        joined=_some_later(size.users, 0.5, 1, random),
        activity=random.gamma(2.0, 1.0, size.users),
    )


def _withdrawn(released: Array, always: int, random: np.random.Generator) -> Array:
    """Times of disappearance: a fifth of the period after release on average. One in twenty stays, and the first
    `always`.
    """
    stays = random.random(len(released)) < 0.05
    stays[:always] = True
    return np.where(stays, 2.0, released + 0.02 + random.exponential(0.2, len(released)))


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
    liking = world.liking(user, moment)
    chances = world.popularity * (world.released <= moment) * (moment < world.withdrawn)
    chances = _shares(chances) + _shares(chances * np.exp(0.3 * liking))
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


def _make_items(world: _World, random: np.random.Generator) -> list[Item]:
    items = []
    for row, (shares, moods) in enumerate(zip(world.genres, (world.moods > 0).astype(int).tolist(), strict=True)):
        main, other = np.argsort(-shares)[:2].tolist()
        words = (random.choice(words[mood]) for words, mood in zip((FIRST_WORDS, LAST_WORDS), moods, strict=True))
        attributes = {"genres": f"{GENRES[main]}, {GENRES[other]}"}
        items.append(Item(item_id=f"item-{row}", title=" ".join(words), attributes=attributes))
    return items
