"""Amazon Reviews, releases of 2018 and 2023 (McAuley Lab): JSON lines, plain or gzipped, with titles in `meta*` files.

A click is a rating of at least 4 of 5, unless another is asked for. Products without any review are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from event_data.event_log import EventLog
from event_data.lines import Lines
from event_data.ratings import FIVE_STARS, Rating, checked_rating, in_time_order, name_with_click
from schemas.messages import Item

CLICK_RATING: Final = 4.0
"""The lowest rating that is a click unless another is asked for."""
PATTERNS: Final = ("*.json", "*.jsonl", "*.json.gz", "*.jsonl.gz")
MAX_CATEGORIES: Final = 3


@dataclass(frozen=True, slots=True)
class Release:
    """How to parse the lines of one release. `parse_review` fails on lines of the other, which tells them apart."""

    year: int
    parse_review: Callable[[str], Rating]
    parse_product: Callable[[str], Item]


def read(folder: Path, release: Release, click_at: float | None = None) -> EventLog:
    """The event log of a folder of review and meta files.

    Raises:
        DatasetError: a file cannot be read or is mostly malformed.
    """
    lines = Lines()
    name = folder.resolve().name
    click_rating = CLICK_RATING if click_at is None else click_at
    ratings = [rating for path in review_files(folder) for _, rating in lines.read(path, release.parse_review)]
    reviewed = {rating.item_id for rating in ratings}
    products = {
        item.item_id: item
        for path in _meta_files(folder)
        for _, item in lines.read(path, release.parse_product)
        if item.item_id in reviewed
    }
    interactions = in_time_order(name, enumerate(ratings, start=1), click_rating, FIVE_STARS)
    log_name = name_with_click(name, click_rating, CLICK_RATING)
    return EventLog(log_name, list(products.values()), interactions, lines.skipped, lines.first_skipped)


def review_files(folder: Path) -> list[Path]:
    """The JSON-lines files of reviews, sorted by name."""
    return [path for path in _json_files(folder) if not path.name.startswith("meta")]


def _meta_files(folder: Path) -> list[Path]:
    return [path for path in _json_files(folder) if path.name.startswith("meta")]


def _json_files(folder: Path) -> Iterator[Path]:
    return iter(sorted({path for pattern in PATTERNS for path in folder.glob(pattern)}))


class _Review2018(msgspec.Struct):
    reviewerID: str  # noqa: N815 - the data's own name
    asin: str
    overall: float
    unixReviewTime: int  # noqa: N815 - the data's own name


class _Review2023(msgspec.Struct):
    user_id: str
    parent_asin: str
    rating: float
    timestamp: int


_REVIEW_2018: Final = msgspec.json.Decoder(_Review2018)
_REVIEW_2023: Final = msgspec.json.Decoder(_Review2023)


def _review_2018(line: str) -> Rating:
    review = _REVIEW_2018.decode(line)
    return checked_rating(review.reviewerID, review.asin, review.overall, review.unixReviewTime * 1_000)


def _review_2023(line: str) -> Rating:
    review = _REVIEW_2023.decode(line)
    return checked_rating(review.user_id, review.parent_asin, review.rating, review.timestamp)


def _product_2018(line: str) -> Item:
    fields = json.loads(line)
    return _product(fields["asin"], fields, brand="brand", categories="category")


def _product_2023(line: str) -> Item:
    fields = json.loads(line)
    return _product(fields["parent_asin"], fields, brand="store", categories="categories")


def _product(item_id: str, fields: dict[str, Any], *, brand: str, categories: str) -> Item:
    """A product. Attributes that are missing, null or of another type are left out."""
    attributes: dict[str, str] = {}
    if isinstance(fields.get(brand), str) and fields[brand]:
        attributes["brand"] = fields[brand]
    names = fields.get(categories)
    if isinstance(names, list):
        # The first category is the department, which all products of a file share.
        named = [name for name in names[1:] if isinstance(name, str)][:MAX_CATEGORIES]
        if named:
            attributes["categories"] = ", ".join(named)
    title = fields.get("title")
    return Item(item_id=str(item_id), title=title if isinstance(title, str) and title else None, attributes=attributes)


RELEASES: Final = (
    Release(2018, _review_2018, _product_2018),
    Release(2023, _review_2023, _product_2023),
)
