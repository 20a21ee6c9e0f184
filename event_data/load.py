"""Loads the data set that a command or a benchmark is given."""

from __future__ import annotations

from pathlib import Path

from event_data.event_log import EventLog
from event_data.folder import read_folder
from event_data.synthetic import synthetic_log
from runtime.errors import DatasetError


def load_log(data: Path | None, click_at: float | None = None) -> EventLog:
    """The data set in a folder, or the synthetic one.

    Args:
        data: the folder.
        click_at: the lowest rating that is a click; None takes the data set's own.

    Raises:
        DatasetError: the folder holds no known data set, or `click_at` is given and there are no ratings.
    """
    if data is not None:
        return read_folder(data, click_at)
    if click_at is not None:
        raise DatasetError(
            "--click-at needs ratings, and the synthetic data has clicks only; name a data set with --data"
        )
    return synthetic_log()
