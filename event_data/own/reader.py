"""Reads a team's own data as an event log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from event_data.event_log import EventLog
from event_data.own.description import (
    Description,
    InteractionColumns,
    ItemColumns,
    Unnamed,
    read_description,
    resolved_interactions,
    resolved_items,
)
from event_data.own.files import Skipped, Table, find_files, open_table
from event_data.own.rows import LEAD_MS, interaction_of, item_of
from runtime.clock import Clock, SystemClock
from runtime.errors import DatasetError
from schemas.messages import Interaction, Item

INTERACTIONS: Final = "interactions"
ITEMS: Final = "items"
MOST_EVENTS: Final = 5_000_000
"""Events read to train on, the newest ones: about 3 GB."""


def is_own_data(folder: Path) -> bool:
    """Whether the folder holds files of interactions by our own names."""
    return bool(find_files(folder, INTERACTIONS))


@dataclass
class OwnData:
    """The data of a folder, read row by row. Each pass reads the files anew, so nothing is held but what is asked for.

    Args:
        folder: with `interactions.*`, perhaps `items.*` and `dataset.toml`.
        clock: tells which times lie in the future.

    Attributes:
        skipped_interactions: rows that could not be used in the passes so far.
        skipped_items: the same for items.
    """

    folder: Path
    clock: Clock = field(default_factory=SystemClock)
    skipped_interactions: Skipped = field(default_factory=Skipped)
    skipped_items: Skipped = field(default_factory=Skipped)

    def interactions(self) -> Iterator[Interaction]:
        """Every interaction, in the order of the files.

        Raises:
            DatasetError: a file cannot be read, or its columns are not clear.
        """
        latest_ms = self.clock.wall_ms() + LEAD_MS
        number = 0
        for table, columns in self._interaction_tables():
            for place, row in table.rows(columns.names(), self.skipped_interactions):
                number += 1
                try:
                    yield interaction_of(row, columns, f"{self.folder.name}-{number}", latest_ms)
                except ValueError as error:
                    self.skipped_interactions.note(str(error), place, row)

    def items(self) -> Iterator[Item]:
        """Every item, in the order of the files.

        Raises:
            DatasetError: a file cannot be read, or its columns are not clear.
        """
        description = self.description
        for path in find_files(self.folder, ITEMS):
            table = open_table(path)
            columns = _resolved_items(description, table)
            for place, row in table.rows(columns.names(), self.skipped_items):
                try:
                    yield item_of(row, columns)
                except ValueError as error:
                    self.skipped_items.note(str(error), place, row)

    @property
    def description(self) -> Description:
        """What `dataset.toml` says."""
        return read_description(self.folder)

    def columns(self) -> InteractionColumns:
        """The columns of the first file of interactions.

        Raises:
            DatasetError: there is none, or its columns are not clear.
        """
        for _, columns in self._interaction_tables():
            return columns
        raise DatasetError(f"{self.folder} holds no file of interactions")

    def _interaction_tables(self) -> Iterator[tuple[Table, InteractionColumns]]:
        description = self.description
        for path in find_files(self.folder, INTERACTIONS):
            table = open_table(path)
            try:
                yield table, resolved_interactions(description.interactions, table.columns)
            except Unnamed as error:
                raise DatasetError(f"{path}: {error}") from error


def read(folder: Path, most_events: int = MOST_EVENTS) -> EventLog:
    """The event log of a folder. Of more than `most_events` events the newest are taken, in a second pass.

    Raises:
        DatasetError: a file cannot be read, its columns are not clear, or most rows cannot be used.
    """
    data = OwnData(folder.resolve())
    since_ms = _newest_since(data, most_events)
    skipped = data.skipped_interactions
    data.skipped_interactions = Skipped()
    interactions = [event for event in data.interactions() if event.event_time_ms >= since_ms]
    if skipped.total > len(interactions):
        reason = max(skipped.counts, key=skipped.counts.__getitem__)
        raise DatasetError(
            f"{skipped.total:,} rows of interactions in {folder} cannot be used, more than can be; most often: "
            f"{reason} ({skipped.examples[reason]}). `exitstream check-data {folder}` tells all"
        )
    interactions.sort(key=lambda event: event.event_time_ms)
    items = {item.item_id: item for item in data.items()}
    first = next(iter(skipped.examples.items()), None)
    return EventLog(
        data.folder.name,
        list(items.values()),
        interactions,
        skipped.total,
        "" if first is None else f"{first[0]} ({first[1]})",
    )


def _newest_since(data: OwnData, most_events: int) -> int:
    """The time of the oldest event to be taken. Holds eight bytes for each event."""
    times: NDArray[np.int64] = np.fromiter((event.event_time_ms for event in data.interactions()), np.int64)
    if len(times) <= most_events:
        return 0
    return int(np.partition(times, len(times) - most_events)[len(times) - most_events])


def _resolved_items(description: Description, table: Table) -> ItemColumns:
    try:
        return resolved_items(description.items, table.columns)
    except Unnamed as error:
        raise DatasetError(f"{table.path}: {error}") from error
