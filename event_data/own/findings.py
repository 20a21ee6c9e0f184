"""What `exitstream check-data` finds in a folder: counts, and in plain words what would be skipped or will not work.

One pass over the rows. Of each event only hashes and numbers are kept, 33 bytes, so that larger data than memory can be
checked.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from event_data.own.description import InteractionColumns
from event_data.own.files import Skipped
from event_data.own.reader import OwnData
from event_data.suitability import Outcomes, unsuitable
from schemas.messages import Interaction, Item

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Findings:
    """What is in a folder.

    Attributes:
        columns: which columns were read.
        events: usable rows of interactions.
        users: distinct users.
        items: distinct items that were interacted with.
        clicks: events that count as clicks.
        first_ms: time of the oldest event; 0 if there are none.
        last_ms: time of the newest.
        repeated_ids: events whose id has occurred before.
        repeated_rows: events with user, item and time of an earlier one.
        catalogue: distinct items in the catalogue.
        without_text: of these, items without title and attributes.
        unlisted: items that were interacted with, but are not in the catalogue.
        skipped: rows of interactions that cannot be used.
        skipped_items: rows of the catalogue that cannot be used.
        problems: what keeps it from being trained on.
    """

    columns: InteractionColumns
    events: int
    users: int
    items: int
    clicks: int
    first_ms: int
    last_ms: int
    repeated_ids: int
    repeated_rows: int
    catalogue: int
    without_text: int
    unlisted: int
    skipped: Skipped
    skipped_items: Skipped
    problems: Sequence[str]

    def lines(self) -> Iterator[str]:
        """The findings in sentences."""
        yield (
            f"{self.events:,} interactions of {self.users:,} users with {self.items:,} items, "
            f"{_day(self.first_ms)} to {_day(self.last_ms)}"
        )
        yield f"{self.clicks / max(1, self.events):.1%} of them are clicks ({_rule(self.columns)})"
        if self.catalogue:
            yield f"{self.catalogue:,} items in the catalogue, {self.without_text:,} of them without any text"
        else:
            yield "no catalogue (items.parquet, .csv or .jsonl): items will be known by their ids alone"
        if self.catalogue and self.unlisted:
            yield f"{self.unlisted:,} items were interacted with but are not in the catalogue"
        if self.repeated_ids:
            yield f"{self.repeated_ids:,} interactions repeat the event id of an earlier one: only one of them counts"
        if self.repeated_rows:
            yield f"{self.repeated_rows:,} interactions have user, item and time of an earlier one: exported twice?"
        for name, skipped in (("interactions", self.skipped), ("items", self.skipped_items)):
            for reason, count in sorted(skipped.counts.items(), key=lambda entry: -entry[1]):
                yield f"{count:,} rows of {name} would be skipped: {reason}; the first: {skipped.examples[reason]}"
        for problem in self.problems:
            yield f"not trainable: {problem}"


@dataclass
class _Columns:
    """The events read so far, as columns of numbers."""

    users: array[int] = field(default_factory=lambda: array("Q"))
    items: array[int] = field(default_factory=lambda: array("Q"))
    ids: array[int] = field(default_factory=lambda: array("Q"))
    times_ms: array[int] = field(default_factory=lambda: array("q"))
    positives: array[int] = field(default_factory=lambda: array("b"))

    def add(self, event: Interaction) -> None:
        self.users.append(_hash(event.user_id))
        self.items.append(_hash(event.item_id))
        self.ids.append(_hash(event.event_id))
        self.times_ms.append(event.event_time_ms)
        self.positives.append(bool(event.positive))


def find(data: OwnData) -> Findings:
    """Reads a folder once.

    Raises:
        DatasetError: a file cannot be read, or its columns are not clear.
    """
    columns = data.columns()
    read = _Columns()
    for event in data.interactions():
        read.add(event)
    users, items, ids = (np.array(column, np.uint64) for column in (read.users, read.items, read.ids))
    times_ms, positives = np.array(read.times_ms, np.int64), np.array(read.positives, np.int8)
    catalogue, without_text = _read_catalogue(data.items())
    met = np.unique(items)
    return Findings(
        columns=columns,
        events=len(users),
        users=len(np.unique(users)),
        items=len(met),
        clicks=int(positives.sum()),
        first_ms=int(times_ms.min()) if len(times_ms) else 0,
        last_ms=int(times_ms.max(initial=0)),
        repeated_ids=len(users) - len(np.unique(ids)),
        repeated_rows=len(users) - _distinct_rows(users, items, times_ms),
        catalogue=len(catalogue),
        without_text=without_text,
        unlisted=len(np.setdiff1d(met, catalogue, assume_unique=True)),
        skipped=data.skipped_interactions,
        skipped_items=data.skipped_items,
        problems=unsuitable(Outcomes.in_time_order(times_ms, positives)),
    )


def _read_catalogue(items: Iterator[Item]) -> tuple[Hashes, int]:
    """The hashes of the items' ids, and how many items have no text. An item's last row counts."""
    has_text = {_hash(item.item_id): bool(item.title or item.attributes) for item in items}
    return np.fromiter(has_text, np.uint64, len(has_text)), sum(not text for text in has_text.values())


def _distinct_rows(*columns: NDArray[np.generic]) -> int:
    """How many distinct rows the columns hold."""
    if not len(columns[0]):
        return 0
    order = np.lexsort(columns)
    changes = np.zeros(len(order) - 1, np.bool_)
    for column in columns:
        ordered = column[order]
        changes |= ordered[1:] != ordered[:-1]
    return 1 + int(changes.sum())


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")


def _rule(columns: InteractionColumns) -> str:
    if columns.positive is not None:
        return f"where `{columns.positive}` is true"
    if columns.rating is not None:
        return f"where `{columns.rating}` is at least {columns.positive_at:g}"
    if columns.kind is not None:
        return f"where `{columns.kind}` is one of {', '.join(columns.positive_kinds)}"
    return "no column says which, so all of them"
