"""A row of a team's own data as an interaction or an item; what is wrong with it is a `ValueError` in plain words."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any, Final, get_args

from event_data.own.description import InteractionColumns, ItemColumns
from event_data.own.files import Row
from schemas.messages import Interaction, InteractionKind, Item

EARLIEST_MS: Final = 631_152_000_000
"""1990: numbers that would lie before it in one unit are of another unit, or no times."""
LEAD_MS: Final = 86_400_000
_LONGEST_ID: Final = 1_024
_PER_SECOND: Final = (1, 1_000, 1_000_000, 1_000_000_000)
"""Units of Unix time: s, ms, µs, ns. Since 1990 their numbers do not overlap."""
_YES: Final = frozenset(("true", "t", "yes", "y", "1", "1.0"))
_NO: Final = frozenset(("false", "f", "no", "n", "0", "0.0"))
_KINDS: Final = frozenset(get_args(InteractionKind))


def interaction_of(row: Row, columns: InteractionColumns, default_id: str, latest_ms: int) -> Interaction:
    """The interaction in a row.

    Args:
        row: values by column.
        columns: of the row's file.
        default_id: its event id, if no column holds one.
        latest_ms: times after this are wrong.

    Raises:
        ValueError: the row cannot be used; says why, without its values, so that alike rows can be counted together.
    """
    kind, positive = _outcome(row, columns)
    return Interaction(
        event_id=_id(row[columns.event_id], columns.event_id) if columns.event_id else default_id,
        user_id=_id(row[columns.user], columns.user),
        item_id=_id(row[columns.item], columns.item),
        kind=kind,
        event_time_ms=time_ms(row[columns.time], columns.time, latest_ms),
        positive=positive,
        weight=_weight(row[columns.weight], columns.weight) if columns.weight else 1.0,
        grade=_grade(row, columns),
    )


def item_of(row: Row, columns: ItemColumns) -> Item:
    """The item in a row; empty attributes are left out.

    Raises:
        ValueError: as above.
    """
    title = _text(row[columns.title]) if columns.title else ""
    attributes = {name: text for name in columns.attributes if (text := _text(row[name]))}
    return Item(item_id=_id(row[columns.item], columns.item), title=title or None, attributes=attributes)


def time_ms(value: Any, column: str, latest_ms: int) -> int:  # noqa: ANN401 - whatever a file holds
    """Unix milliseconds of a date, a date and time, ISO 8601 text, or a Unix time in s, ms, µs or ns.

    Raises:
        ValueError: it is none, or lies before 1990 or after `latest_ms`.
    """
    if isinstance(value, str):
        value = _number_or_moment(value.strip(), column)
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return _plausible(round(moment.timestamp() * 1_000), column, latest_ms)
    if isinstance(value, date):
        return time_ms(datetime(value.year, value.month, value.day, tzinfo=UTC), column, latest_ms)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        for per_second in _PER_SECOND:
            moment_ms = int(value * 1_000 // per_second)
            if EARLIEST_MS <= moment_ms <= latest_ms:
                return moment_ms
        raise ValueError(f"`{column}` lies before 1990 or in the future")
    raise ValueError(f"`{column}` is empty" if value is None else f"`{column}` is no time")


def _number_or_moment(text: str, column: str) -> float | datetime | None:
    if not text:
        return None
    with suppress(ValueError):
        return int(text) if text.isdigit() else float(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"`{column}` is no time (ISO 8601 or Unix time)") from error


def _plausible(moment_ms: int, column: str, latest_ms: int) -> int:
    if not EARLIEST_MS <= moment_ms <= latest_ms:
        raise ValueError(f"`{column}` lies before 1990 or in the future")
    return moment_ms


def _outcome(row: Row, columns: InteractionColumns) -> tuple[InteractionKind, bool]:
    """What the user did, and whether it counts as a click. Without a column that says so, everything is a click."""
    if columns.positive is not None:
        positive = _yes_or_no(row[columns.positive], columns.positive)
        return ("click" if positive else "impression"), positive
    if columns.rating is not None:
        return "rating", _number(row[columns.rating], columns.rating) >= columns.positive_at
    if columns.kind is not None:
        kind = _text(row[columns.kind])
        if not kind:
            raise ValueError(f"`{columns.kind}` is empty")
        known: InteractionKind = kind if kind in _KINDS else "other"  # type: ignore[assignment]  # one of the literals
        return known, kind in columns.positive_kinds
    return "click", True


def _yes_or_no(value: Any, column: str) -> bool:  # noqa: ANN401 - whatever a file holds
    word = str(value).strip().lower()
    if word in _YES or word in _NO:
        return word in _YES
    raise ValueError(f"`{column}` is empty" if value is None else f"`{column}` is neither true nor false (1 or 0)")


def _number(value: Any, column: str) -> float:  # noqa: ANN401 - as above
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{column}` is empty" if value is None else f"`{column}` is no number") from error
    if not math.isfinite(number):
        raise ValueError(f"`{column}` is no number")
    return number


def _weight(value: Any, column: str) -> float:  # noqa: ANN401 - as above
    weight = _number(value, column)
    if not 0.0 < weight <= 1e6:
        raise ValueError(f"`{column}` lies outside 0 to 1,000,000")
    return weight


def _grade(row: Row, columns: InteractionColumns) -> float | None:
    """How good it was for the user. A grade's empty cell leaves it to the outcome, as does a file without grades."""
    if columns.grade is not None:
        if not _text(row[columns.grade]):
            return None
        grade = _number(row[columns.grade], columns.grade)
        if not 0.0 <= grade <= 1.0:
            raise ValueError(f"`{columns.grade}` lies outside 0 to 1")
        return grade
    if columns.rating is not None and columns.rating_scale is not None:
        return columns.rating_scale.grade(_number(row[columns.rating], columns.rating))
    return None


def _id(value: Any, column: str) -> str:  # noqa: ANN401 - as above
    """An id as text. A whole number stored as a float, as pandas does beside missing values, is that number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else str(value)
    if not text:
        raise ValueError(f"`{column}` is empty")
    if len(text) > _LONGEST_ID:
        raise ValueError(f"`{column}` is longer than {_LONGEST_ID} characters")
    return text


def _text(value: Any) -> str:  # noqa: ANN401 - as above
    """Text of a value; several values of one attribute, separated by commas."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(text for entry in value if (text := _text(entry)))
    return str(value).strip()
