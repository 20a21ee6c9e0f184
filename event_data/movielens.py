"""MovieLens (GroupLens): the layout of 100K, the `.dat` files of 1M and 10M, and the CSV files of later releases.

A click is a rating of at least 4 of 5, unless another is asked for.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from event_data.event_log import EventLog
from event_data.lines import Lines
from event_data.ratings import FIVE_STARS, Rating, Scale, checked_rating, in_time_order, name_with_click
from schemas.messages import Item

CLICK_RATING: Final = 4.0
"""The lowest rating that is a click unless another is asked for."""
HALF_STARS: Final = Scale(0.5, 5.0)
GENRES_100K: Final = (
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
    ),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""The genre flags at the end of a line of `u.item`, in order."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one release and how to parse their lines."""

    ratings_file: str
    items_file: str
    encoding: str
    header_lines: int
    rating: Callable[[str], Rating]
    item: Callable[[str], Item]
    scale: Scale


def read(folder: Path, layout: Layout, click_at: float | None = None) -> EventLog:
    """The event log of a MovieLens folder.

    Raises:
        DatasetError: a file cannot be read or is mostly malformed.
    """
    lines = Lines()
    name = folder.resolve().name
    click_rating = CLICK_RATING if click_at is None else click_at
    items_path, ratings_path = folder / layout.items_file, folder / layout.ratings_file
    items = [item for _, item in lines.read(items_path, layout.item, layout.encoding, layout.header_lines)]
    if layout.header_lines:
        lines.require_header(ratings_path, layout.rating, layout.encoding)
    ratings = lines.read(ratings_path, layout.rating, layout.encoding, layout.header_lines)
    interactions = in_time_order(name, ratings, click_rating, layout.scale)
    log_name = name_with_click(name, click_rating, CLICK_RATING)
    return EventLog(log_name, items, interactions, lines.skipped, lines.first_skipped)


def _rating_from(fields: list[str]) -> Rating:
    user, item, value, seconds = fields
    return checked_rating(user, item, float(value), int(seconds) * 1_000)


def _rating_100k(line: str) -> Rating:
    return _rating_from(line.split("\t"))


def _rating_dat(line: str) -> Rating:
    return _rating_from(line.split("::"))


def _rating_csv(line: str) -> Rating:
    return _rating_from(line.split(","))


def _item_100k(line: str) -> Item:
    fields = line.split("|")
    flags = fields[-len(GENRES_100K) :]
    genres = [genre for genre, flag in zip(GENRES_100K, flags, strict=True) if flag == "1"]
    return _item(fields[0], fields[1], genres)


def _item_dat(line: str) -> Item:
    item_id, title, genres = line.split("::")
    return _item(item_id, title, genres.split("|"))


def _item_csv(line: str) -> Item:
    item_id, title, genres = next(csv.reader((line,)))
    return _item(item_id, title, genres.split("|"))


def _item(item_id: str, title: str, genres: list[str]) -> Item:
    if not item_id:
        raise ValueError("empty item id")
    named = [genre for genre in genres if genre not in {"", "unknown", "(no genres listed)"}]
    return Item(item_id=item_id, title=title or None, attributes={"genres": ", ".join(named)} if named else {})


LAYOUTS: Final = (
    Layout("u.data", "u.item", "latin-1", 0, _rating_100k, _item_100k, FIVE_STARS),
    Layout("ratings.dat", "movies.dat", "latin-1", 0, _rating_dat, _item_dat, FIVE_STARS),
    Layout("ratings.csv", "movies.csv", "utf-8", 1, _rating_csv, _item_csv, HALF_STARS),
)
