"""Book-Crossing's CSV dump (Ziegler et al., 2005): `;`-separated, quoted, Latin-1, without time stamps.

Only explicit ratings (1 to 10) are read: an implicit 0 does not say whether the book was liked. A click is a rating of
at least 5 unless another is asked for; that is nearly every one, and 8 divides them better. The data has no times, so
the events get a fixed pseudo-random order, one per second. It mixes users and books evenly, so that histories grow as
they would in a stream, and it is the same on every machine.
"""

from __future__ import annotations

import csv
import zlib
from pathlib import Path
from typing import Final

from event_data.event_log import EventLog
from event_data.lines import Lines
from event_data.ratings import Rating, Scale, checked_rating, in_time_order, name_with_click
from schemas.messages import Item

RATINGS_FILE: Final = "BX-Book-Ratings.csv"
BOOKS_FILE: Final = "BX-Books.csv"
NAME: Final = "book-crossing"
CLICK_RATING: Final = 5.0
"""The lowest rating that is a click unless another is asked for."""
SCALE: Final = Scale(1.0, 10.0)
START_MS: Final = 1_100_000_000_000
"""November 2004, when the data was collected."""


def read(folder: Path, click_at: float | None = None) -> EventLog:
    """The event log of a Book-Crossing folder; without `BX-Books.csv` the books have no titles.

    Raises:
        DatasetError: a file cannot be read or is mostly malformed.
    """
    lines = Lines()
    lines.require_header(folder / RATINGS_FILE, _rating, encoding="latin-1")
    ratings = list(lines.read(folder / RATINGS_FILE, _rating, encoding="latin-1", header_lines=1))
    explicit = [(number, rating) for number, rating in ratings if rating.value > 0]
    rated = {rating.item_id for _, rating in explicit}
    items: list[Item] = []
    if (folder / BOOKS_FILE).exists():
        books = lines.read(folder / BOOKS_FILE, _book, encoding="latin-1", header_lines=1)
        items = [book for _, book in books if book.item_id in rated]
    click_rating = CLICK_RATING if click_at is None else click_at
    interactions = in_time_order(NAME, _in_pseudo_order(explicit), click_rating, SCALE)
    return EventLog(
        name_with_click(NAME, click_rating, CLICK_RATING), items, interactions, lines.skipped, lines.first_skipped
    )


def _rating(line: str) -> Rating:
    user, book, value = next(csv.reader((line,), delimiter=";", escapechar="\\"))
    return checked_rating(user, book, float(value), 0)


def _book(line: str) -> Item:
    fields = next(csv.reader((line,), delimiter=";", escapechar="\\"))
    isbn, title, author = (*fields[:3], "", "")[:3]
    if not isbn:
        raise ValueError("empty ISBN")
    # Not the publisher: what readers did with other books of the same one tells little, and costs AUC.
    return Item(item_id=isbn, title=title or None, attributes={"author": author} if author else {})


def _in_pseudo_order(ratings: list[tuple[int, Rating]]) -> list[tuple[int, Rating]]:
    """The ratings, with times in the order of a checksum of user and book."""
    shuffled = sorted(ratings, key=lambda row: (zlib.crc32(f"{row[1].user_id} {row[1].item_id}".encode()), row[0]))
    return [
        (number, rating._replace(time_ms=START_MS + position * 1_000))
        for position, (number, rating) in enumerate(shuffled)
    ]
