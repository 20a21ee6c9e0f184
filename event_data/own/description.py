"""What the columns of a team's own files mean: `dataset.toml` in their folder, or the names that are usual.

    [interactions]
    user = "customer"              # columns
    item = "sku"
    time = "shown_at"              # ISO 8601, or Unix s, ms, us or ns: told apart by size
    positive = "clicked"           # true/false or 1/0; or one of the two below
    # rating = "stars"
    # positive_at = 4              # a rating of at least this counts as a click
    # rating_scale = [1, 5]        # the lowest and the highest: ratings also tell how good it was
    # grade = "watched_share"      # or a column that does, from 0 to 1
    # kind = "action"
    # positive_kinds = ["click", "purchase"]

    [items]
    item = "sku"
    title = "name"
    attributes = ["brand", "category"]

Every line may be left out where the column has one of the usual names.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from event_data.ratings import Scale
from runtime.errors import DatasetError

DESCRIPTION_FILE: Final = "dataset.toml"
_USER: Final = ("user_id", "user", "userId", "customer_id", "visitor_id")
_ITEM: Final = ("item_id", "item", "itemId", "product_id", "sku", "article_id", "news_id")
_TIME: Final = ("event_time_ms", "event_time", "timestamp", "time", "ts", "datetime", "date")
_POSITIVE: Final = ("positive", "clicked", "click", "label", "is_click")
_RATING: Final = ("rating", "stars")
_KIND: Final = ("kind", "event", "event_type", "action")
_TITLE: Final = ("title", "name", "headline")
_CLICK_KINDS: Final = ("click", "purchase", "like", "add_to_cart", "order", "play")


class NamedInteractions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[interactions]` of a `dataset.toml`; a column that is None has its usual name, if it is there.

    Attributes:
        positive_at: a rating of at least this counts as a click.
        rating_scale: the lowest and the highest rating that can be given.
        positive_kinds: kinds that count as clicks.
        grade: how good it was for the user, from 0 to 1.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    positive: str | None = None
    rating: str | None = None
    positive_at: float | None = None
    rating_scale: tuple[float, float] | None = None
    kind: str | None = None
    positive_kinds: tuple[str, ...] = _CLICK_KINDS
    event_id: str | None = None
    weight: str | None = None
    grade: str | None = None


class NamedItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[items]` of a `dataset.toml`. Without `attributes`, every other column is one."""

    item: str | None = None
    title: str | None = None
    attributes: tuple[str, ...] | None = None


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a `dataset.toml`; without one, everything is left to the usual names."""

    interactions: NamedInteractions = NamedInteractions()
    items: NamedItems = NamedItems()


@dataclass(frozen=True, slots=True)
class InteractionColumns:
    """The columns to read, all of which a file has. At most one of positive, rating and kind is not None."""

    user: str
    item: str
    time: str
    positive: str | None = None
    rating: str | None = None
    positive_at: float = math.inf
    rating_scale: Scale | None = None
    kind: str | None = None
    positive_kinds: tuple[str, ...] = _CLICK_KINDS
    event_id: str | None = None
    weight: str | None = None
    grade: str | None = None

    def names(self) -> list[str]:
        """Each column once."""
        required = (self.user, self.item, self.time)
        optional = (self.positive, self.rating, self.kind, self.event_id, self.weight, self.grade)
        return list(dict.fromkeys((*required, *(name for name in optional if name is not None))))


@dataclass(frozen=True, slots=True)
class ItemColumns:
    """The columns to read, all of which a file has."""

    item: str
    title: str | None
    attributes: tuple[str, ...]

    def names(self) -> list[str]:
        """Each column once."""
        return list(dict.fromkeys((self.item, *(() if self.title is None else (self.title,)), *self.attributes)))


class Unnamed(ValueError):
    """A column cannot be found. The text says which, and what there is."""


def read_description(folder: Path) -> Description:
    """What the folder's `dataset.toml` says; nothing if there is none.

    Raises:
        DatasetError: it cannot be read, or holds something unknown.
    """
    path = folder / DESCRIPTION_FILE
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Description)
    except FileNotFoundError:
        return Description()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be used: {error}") from error


def resolved_interactions(named: NamedInteractions, there: Collection[str]) -> InteractionColumns:
    """The columns to read.

    Raises:
        Unnamed: the user, the item, the time, or a column that was named is not there.
    """
    role, outcome = _outcome(named, there)
    if role == "rating" and named.positive_at is None:
        raise Unnamed(
            f"the column `{outcome}` holds ratings: say from which on one counts as a click, with "
            f"positive_at = ... in [interactions] of {DESCRIPTION_FILE}"
        )
    scale = named.rating_scale
    if scale is not None and not scale[0] < scale[1]:
        raise Unnamed(
            f"rating_scale = [{scale[0]:g}, {scale[1]:g}] in {DESCRIPTION_FILE}: the lowest rating comes first"
        )
    return InteractionColumns(
        user=_required("user", named.user, _USER, there),
        item=_required("item", named.item, _ITEM, there),
        time=_required("time", named.time, _TIME, there),
        positive=outcome if role == "positive" else None,
        rating=outcome if role == "rating" else None,
        positive_at=math.inf if named.positive_at is None else named.positive_at,
        rating_scale=Scale(*scale) if scale is not None and role == "rating" else None,
        kind=outcome if role == "kind" else None,
        positive_kinds=named.positive_kinds,
        event_id=_optional("event_id", named.event_id, ("event_id",), there),
        weight=_optional("weight", named.weight, ("weight",), there),
        grade=_optional("grade", named.grade, ("grade",), there),
    )


def resolved_items(named: NamedItems, there: Collection[str]) -> ItemColumns:
    """The columns to read.

    Raises:
        Unnamed: the item, or a column that was named, is not there.
    """
    item = _required("item", named.item, (*_ITEM, "id"), there)
    title = _optional("title", named.title, _TITLE, there)
    if named.attributes is None:
        return ItemColumns(item, title, tuple(name for name in there if name not in (item, title)))
    return ItemColumns(item, title, tuple(_required("attributes", name, (), there) for name in named.attributes))


def _outcome(named: NamedInteractions, there: Collection[str]) -> tuple[str, str | None]:
    """The column that says whether it was a click, and how. What the description names goes before usual names."""
    by_role = (("positive", named.positive), ("rating", named.rating), ("kind", named.kind))
    for role, column in by_role:
        if column is not None:
            return role, _required(role, column, (), there)
    for role, usual in (("positive", _POSITIVE), ("rating", _RATING), ("kind", _KIND)):
        if (column := _optional(role, None, usual, there)) is not None:
            return role, column
    return "none", None


def _required(role: str, named: str | None, usual: Collection[str], there: Collection[str]) -> str:
    column = _optional(role, named, usual, there)
    if column is None:
        looked = f"none of the usual names ({', '.join(usual)})"
        raise Unnamed(f"no column for `{role}`: {looked} among {_shown(there)}; name it in {DESCRIPTION_FILE}")
    return column


def _optional(role: str, named: str | None, usual: Collection[str], there: Collection[str]) -> str | None:
    if named is not None:
        if named not in there:
            raise Unnamed(f"no column `{named}`, which {DESCRIPTION_FILE} names for `{role}`, among {_shown(there)}")
        return named
    return next((name for name in usual if name in there), None)


def _shown(there: Collection[str]) -> str:
    """The columns of a file; a first line that looks like data is told to be one."""
    names = ", ".join(f"`{name}`" for name in there)
    first_line_is_data = any(name[:1].isdigit() for name in there)
    return f"{names} (is the first line a header?)" if first_line_is_data else names
