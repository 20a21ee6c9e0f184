"""Loads the data set that a command or a benchmark is given."""

from __future__ import annotations

from pathlib import Path

from event_data.event_log import EventLog
from event_data.folder import read_folder
from event_data.synthetic import synthetic_log


def load_log(data: Path | None) -> EventLog:
    """The data set in a folder, or the synthetic one.

    Raises:
        DatasetError: the folder holds no known data set.
    """
    return synthetic_log() if data is None else read_folder(data)
