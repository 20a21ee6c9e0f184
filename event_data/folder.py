"""Reads whichever known data set a folder holds, recognised by its files."""

from __future__ import annotations

from pathlib import Path

from event_data import amazon, book_crossing, movielens
from event_data.event_log import EventLog
from event_data.lines import Lines
from event_data.own.files import ENDINGS
from event_data.own.reader import INTERACTIONS, is_own_data
from event_data.own.reader import read as read_own_data
from runtime.errors import DatasetError

LOOKED_FOR = (
    *(f"{layout.ratings_file} with {layout.items_file} (MovieLens)" for layout in movielens.LAYOUTS),
    f"{book_crossing.RATINGS_FILE} (Book-Crossing)",
    "*.json or *.jsonl, also .gz, of Amazon Reviews 2018 or 2023",
    f"{INTERACTIONS} with {', '.join(ENDINGS)} (your own: docs/your-own-data.md)",
)


def read_folder(folder: Path, click_at: float | None = None) -> EventLog:
    """The event log of the data set in a folder.

    Args:
        folder: holds the files of one data set.
        click_at: the lowest rating that is a click; None takes the data set's own.

    Raises:
        DatasetError: the folder does not exist, or holds no known data set or no interactions; or `click_at` is given
            and the data set has no ratings, or none of them is on one side of it.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; give the folder that holds the files of the data set")
    log = _read_recognised(folder, click_at)
    if log is None:
        raise DatasetError(f"no known data set in {folder}; looked for {'; '.join(LOOKED_FOR)}")
    if not log.interactions:
        raise DatasetError(f"the data set in {folder} holds no interactions")
    if click_at is not None:
        _require_both_outcomes(log, folder, click_at)
    return log


def _require_both_outcomes(log: EventLog, folder: Path, click_at: float) -> None:
    clicks = sum(bool(event.positive) for event in log.interactions)
    if clicks in (0, len(log.interactions)):
        what = "every rating is" if clicks else "no rating is"
        raise DatasetError(
            f"with --click-at {click_at:.15g} {what} a click in {folder}; choose one between the lowest and the "
            "highest rating of the data set"
        )


def _read_recognised(folder: Path, click_at: float | None) -> EventLog | None:
    for layout in movielens.LAYOUTS:
        if (folder / layout.ratings_file).exists() and (folder / layout.items_file).exists():
            return movielens.read(folder, layout, click_at)
    if (folder / book_crossing.RATINGS_FILE).exists():
        return book_crossing.read(folder, click_at)
    if is_own_data(folder):
        if click_at is not None:
            raise DatasetError(
                f"--click-at is for MovieLens, Book-Crossing and Amazon ratings; {folder} is data of your own, whose "
                "dataset.toml says what a click is (`rating` with `positive_at`)"
            )
        return read_own_data(folder)
    for release in amazon.RELEASES:
        if _begins_like(folder, release):
            return amazon.read(folder, release, click_at)
    return None


def _begins_like(folder: Path, release: amazon.Release) -> bool:
    """Whether the first line of any review file has the fields of this release."""
    for path in amazon.review_files(folder):
        try:
            next(iter(Lines().read(path, release.parse_review)), None)
        except DatasetError:
            continue
        return True
    return False
