"""Reads text files line by line; malformed lines are counted and skipped, unless most lines are malformed."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Final, TypeVar

from runtime.errors import DatasetError

T = TypeVar("T")

JUDGED_AFTER: Final = 1_000
"""After this many lines a mostly malformed file is given up, so that a huge wrong file fails early."""


class Lines:
    """Parses lines of text files and counts those that cannot be parsed.

    Attributes:
        skipped: number of malformed lines so far, over all files.
        first_skipped: place and error of the first of them.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self.first_skipped = ""

    def read(
        self, path: Path, parse: Callable[[str], T], encoding: str = "utf-8", header_lines: int = 0
    ) -> Iterator[tuple[int, T]]:
        """Line numbers and parsed lines of a file, gzipped if its name ends in `.gz`. Empty lines are skipped.

        `parse` raises ValueError, KeyError or IndexError for a malformed line.

        Raises:
            DatasetError: when more than half of the lines cannot be parsed, or the file cannot be read.
        """
        good = bad = 0
        for number, line in _numbered_lines(path, encoding):
            if number <= header_lines or not line:
                continue
            try:
                parsed = parse(line)
            except (ValueError, KeyError, IndexError) as error:
                bad += 1
                self._note(path, number, line, error)
                if bad > good and bad + good >= JUDGED_AFTER:
                    break
                continue
            good += 1
            yield number, parsed
        if bad > good:
            raise DatasetError(
                f"{path}: {bad} of {bad + good} lines read are malformed; the first: {self.first_skipped}"
            )

    def require_header(self, path: Path, parse: Callable[[str], object], encoding: str = "utf-8") -> None:
        """Refuses a file whose first line is data: skipped as a header, it would be lost.

        Raises:
            DatasetError: the first line can be parsed, or the file cannot be read.
        """
        _, first = next(_numbered_lines(path, encoding), (0, ""))
        try:
            parse(first)
        except (ValueError, KeyError, IndexError):
            return
        raise DatasetError(f"{path} has no header: its first line is data ({first[:80]!r}); put the column names there")

    def _note(self, path: Path, number: int, line: str, error: Exception) -> None:
        self.skipped += 1
        if not self.first_skipped:
            self.first_skipped = f"{path.name} line {number}: {error or type(error).__name__} in {line[:80]!r}"


def _numbered_lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Only line feeds end a line: titles contain other characters that Unicode counts as line ends."""
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                yield number, line.decode(encoding, errors="replace").rstrip("\r\n")
    except (OSError, EOFError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
