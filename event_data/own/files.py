"""Finds the files of a team's own data, and reads their rows one by one: Parquet, CSV and JSON lines alike.

Files are streamed, so they may be larger than memory. pyarrow reads Parquet and CSV; every value of a CSV file comes as
text, so that an id like `007` stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from event_data.lines import Lines
from runtime.errors import DatasetError, MissingDependency

ENDINGS: Final = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".ndjson")
_BATCH_ROWS: Final = 16_384
_DELIMITERS: Final = (",", ";", "\t", "|")
_HEADER_BYTES: Final = 65_536
Row = dict[str, Any]


@dataclass(slots=True)
class Skipped:
    """Rows that could not be used, by reason.

    Attributes:
        counts: how many, by reason.
        examples: place and content of the first of each.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def note(self, reason: str, place: str, row: object) -> None:
        """Counts one row."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.examples.setdefault(reason, f"{place}: {str(row)[:120]}")

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())


def find_files(folder: Path, name: str) -> list[Path]:
    """The files of one name: `name.parquet` and the like, or a folder `name` (or `name.parquet`) full of them.

    Raises:
        DatasetError: there are several that could be meant.
    """
    found = [path for ending in ENDINGS if (path := folder / f"{name}{ending}").exists()]
    if (folder / name).is_dir():
        found.append(folder / name)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DatasetError(f"{folder} holds {names}: keep one of them, it is not clear which is meant")
    if found and found[0].is_dir():
        return sorted(path for path in found[0].rglob("*") if path.is_file() and path.name.endswith(ENDINGS))
    return found


@dataclass(frozen=True)
class Table:
    """One file with rows.

    Attributes:
        path: of the file.
        columns: their names; of JSON lines, those of the first row.
    """

    path: Path
    columns: Sequence[str]
    _rows: Callable[[Sequence[str], Skipped], Iterator[tuple[str, Row]]]

    def rows(self, columns: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, Row]]:
        """The place of each row and its values in these columns. Rows that cannot be parsed are counted.

        Raises:
            DatasetError: the file cannot be read.
        """
        return self._rows(columns, skipped)


def open_table(path: Path) -> Table:
    """A file's columns, and the way to its rows.

    Raises:
        DatasetError: it cannot be read.
        MissingDependency: pyarrow is not installed, and it is a Parquet or CSV file.
    """
    if path.name.endswith(".parquet"):
        return _open_parquet(path)
    if ".jsonl" in path.name or path.name.endswith(".ndjson"):
        return _open_json_lines(path)
    return _open_csv(path)


def _open_parquet(path: Path) -> Table:
    pyarrow = _pyarrow()
    try:
        columns = pyarrow.parquet.read_schema(path).names
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read as Parquet: {error}") from error

    def rows(wanted: Sequence[str], _: Skipped) -> Iterator[tuple[str, Row]]:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                batches = file.iter_batches(_BATCH_ROWS, columns=list(wanted))
                yield from _numbered(path, batches, first_row=1)
        except (OSError, pyarrow.ArrowException) as error:
            raise DatasetError(f"{path} cannot be read as Parquet: {error}") from error

    return Table(path, columns, rows)


def _open_csv(path: Path) -> Table:
    pyarrow = _pyarrow()

    def open_reader(wanted: Sequence[str] | None, skipped: Skipped) -> Any:  # noqa: ANN401 - pyarrow is untyped here
        def skip(row: Any) -> str:  # noqa: ANN401 - as above
            reason = f"{row.actual_columns} columns where the header has {row.expected_columns}"
            skipped.note(reason, f"{path.name} line {row.number}" if row.number else path.name, row.text)
            return "skip"

        names = wanted if wanted is not None else ()
        return pyarrow.csv.open_csv(
            path,
            pyarrow.csv.ReadOptions(use_threads=False),
            pyarrow.csv.ParseOptions(delimiter=_delimiter_of(path), newlines_in_values=True, invalid_row_handler=skip),
            pyarrow.csv.ConvertOptions(
                include_columns=list(names),
                column_types=dict.fromkeys(names, pyarrow.string()),
                strings_can_be_null=True,
                null_values=["", "NULL", "null", "NaN", "nan", "\\N"],
            ),
        )

    def readable(wanted: Sequence[str] | None, skipped: Skipped) -> Any:  # noqa: ANN401 - as above
        try:
            return open_reader(wanted, skipped)
        except (OSError, UnicodeError, pyarrow.ArrowException) as error:
            raise DatasetError(f"{path} cannot be read as CSV in UTF-8: {error}") from error

    def rows(wanted: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, Row]]:
        with readable(wanted, skipped) as reader:
            try:
                yield from _numbered(path, reader, first_row=2)
            except (OSError, pyarrow.ArrowException) as error:
                raise DatasetError(f"{path} cannot be read as CSV in UTF-8: {error}") from error

    with readable(None, Skipped()) as reader:
        try:
            return Table(path, list(reader.schema.names), rows)
        except UnicodeError as error:
            raise DatasetError(f"{path} cannot be read as CSV in UTF-8: {error}") from error


def _open_json_lines(path: Path) -> Table:
    decoder = msgspec.json.Decoder(dict[str, Any])
    first = next(iter(Lines().read(path, decoder.decode)), None)

    def rows(wanted: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, Row]]:
        lines = Lines()
        for number, row in lines.read(path, decoder.decode):
            yield f"{path.name} line {number}", {name: row.get(name) for name in wanted}
        for _ in range(lines.skipped):
            skipped.note("not a JSON object", path.name, lines.first_skipped)

    return Table(path, [] if first is None else list(first[1]), rows)


def _numbered(path: Path, batches: Iterator[Any], first_row: int) -> Iterator[tuple[str, Row]]:
    number = first_row
    for batch in batches:
        for row in batch.to_pylist():
            yield f"{path.name} row {number}", row
            number += 1


def _delimiter_of(path: Path) -> str:
    """The one of the usual delimiters that occurs most in the first line."""
    if ".tsv" in path.name:
        return "\t"
    pyarrow = _pyarrow()
    try:
        with pyarrow.input_stream(path) as file:
            header = file.read(_HEADER_BYTES).split(b"\n", 1)[0].decode("utf-8", errors="replace")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return max(_DELIMITERS, key=header.count)


def _pyarrow() -> Any:  # noqa: ANN401 - a module without types
    try:
        import pyarrow  # noqa: ICN001, PLC0415 - an optional dependency, named in full
        import pyarrow.csv  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependency("Parquet and CSV files need pyarrow: pip install 'exitstream[data]'") from error
    return pyarrow
