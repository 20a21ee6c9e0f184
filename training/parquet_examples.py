"""Writes training examples to Parquet files, a file per shard, and reads them back one file at a time.

A row is an example. Its prompt's parts (the prefix, then the suffixes) stand one after the other in each list, and
`part_tokens`, `part_soft` and `part_added` tell how long each part is. Numbers come back bit by bit as they were.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.prompt import Prompt
from models.token_sequence import TokenSequence
from runtime.errors import CheckpointError, MissingDependency
from training.replay import Example
from training.shards import Keep, ShardedExamples, shard_count, with_shard_numbers

COLUMNS: Final = {
    "labels": np.float32,
    "events": np.int64,
    "part_tokens": np.int32,
    "part_soft": np.int32,
    "part_added": np.int32,
    "token_ids": np.int32,
    "soft_positions": np.int32,
    "soft_kinds": np.int8,
    "soft_values": np.float32,
    "added_ids": np.int32,
    "added_positions": np.int32,
}
"""Lists of numbers: one list per example in each."""
_WIDTH: Final = "soft_width"
"""Key of the files' metadata: columns of `soft_values`, which are flattened."""
_CANDIDATES_PER_GROUP: Final = 1_024
"""Examples are written in groups of so many candidates; a group per shard is in memory meanwhile."""


def parquet_in(folder: Path) -> Keep:
    """A `Keep` that writes examples to a folder, in place of any that lie there. The folder is made at once, so that
    what is in the way is told before there are examples.

    Raises:
        CheckpointError: the folder cannot be written; the `Keep` raises it too.
        MissingDependency: pyarrow is not installed.
    """
    _pyarrow()
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)

    def keep(examples: Iterable[Example], candidates: int, seed: int) -> ShardedExamples:
        shards: list[_ShardWriter] = []
        with _writing(folder):
            shutil.rmtree(folder)
            folder.mkdir()
            shards += [_ShardWriter(folder / f"shard-{number:05}.parquet") for number in range(shard_count(candidates))]
            for number, example in with_shard_numbers(examples, candidates, seed):
                shards[number].add(example)
            for shard in shards:
                shard.close()
        return read_examples(folder)

    return keep


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot keep the training examples in {folder}: {error}") from error


def read_examples(folder: Path) -> ShardedExamples:
    """The examples that were written to a folder; one shard at a time is in memory.

    Raises:
        CheckpointError: there are none, or they cannot be read.
        MissingDependency: pyarrow is not installed.
    """
    files = sorted(folder.glob("shard-*.parquet"))
    if not files:
        raise CheckpointError(f"there are no training examples in {folder}")
    sizes = [_sizes(path) for path in files]
    return ShardedExamples(lambda number: ParquetShard(files[number]), *map(list, zip(*sizes, strict=True)))


class ParquetShard(Sequence[Example]):
    """The examples of a file. Its numbers are in memory as a whole; each example is made when it is asked for.

    Args:
        path: the file.

    Raises:
        CheckpointError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._lists = _read(path, COLUMNS)
        self._width = _width(path)

    def __len__(self) -> int:
        return len(self._lists["labels"].starts) - 1

    def __getitem__(self, place: Any) -> Any:  # noqa: ANN401 - an index or a slice, one example or several
        if isinstance(place, slice):
            return [self[row] for row in range(*place.indices(len(self)))]
        row = range(len(self))[place]
        part = {name: lists.of(row) for name, lists in self._lists.items()}
        soft_values = part["soft_values"].reshape(-1, self._width)
        tokens, soft, added = (np.cumsum([0, *part[f"part_{kind}"]]) for kind in ("tokens", "soft", "added"))
        prefix, *suffixes = [
            TokenSequence(
                part["token_ids"][first:end],
                part["soft_positions"][first_soft:end_soft],
                part["soft_kinds"][first_soft:end_soft],
                soft_values[first_soft:end_soft],
                part["added_ids"][first_added:end_added],
                part["added_positions"][first_added:end_added],
            )
            for (first, end), (first_soft, end_soft), (first_added, end_added) in zip(
                pairwise(tokens), pairwise(soft), pairwise(added), strict=True
            )
        ]
        return Example(Prompt(prefix, suffixes), part["labels"], part["events"])


class _ShardWriter:
    """Writes one file, a group of examples at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[Example] = []
        self._candidates = 0
        self._file: Any = None

    def add(self, example: Example) -> None:
        self._waiting.append(example)
        self._candidates += len(example)
        if self._candidates >= _CANDIDATES_PER_GROUP:
            self._write()

    def close(self) -> None:
        if self._waiting:
            self._write()
        if self._file is not None:
            self._file.close()

    def _write(self) -> None:
        pyarrow = _pyarrow()
        width = self._waiting[0].prompt.prefix.soft_values.shape[1]
        table = pyarrow.table({name: _column(name, self._waiting) for name in COLUMNS}, metadata={_WIDTH: str(width)})
        if self._file is None:
            self._file = pyarrow.parquet.ParquetWriter(
                self._path, table.schema, compression="zstd", use_dictionary=False
            )
        self._file.write_table(table)
        self._waiting, self._candidates = [], 0


def _column(name: str, examples: Sequence[Example]) -> Any:  # noqa: ANN401 - a pyarrow array, untyped here
    pyarrow = _pyarrow()
    lists = [_numbers(name, example) for example in examples]
    starts = np.cumsum([0, *map(len, lists)], dtype=np.int32)
    return pyarrow.ListArray.from_arrays(starts, np.concatenate(lists).astype(COLUMNS[name], copy=False))


def _numbers(name: str, example: Example) -> NDArray[Any]:
    """One example's numbers in a column."""
    if name in {"labels", "events"}:
        told: NDArray[Any] = getattr(example, name)
        return told
    parts = (example.prompt.prefix, *example.prompt.suffixes)
    if name == "part_tokens":
        return np.array([len(part) for part in parts])
    if name == "part_soft":
        return np.array([len(part.soft_kinds) for part in parts])
    if name == "part_added":
        return np.array([len(part.added_ids) for part in parts])
    return np.concatenate([getattr(part, name).ravel() for part in parts])


def _sizes(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens (examples,) and candidates (examples,) of a file."""
    lists = _read(path, ["labels", "part_tokens"])
    tokens = np.cumsum(np.concatenate([[0], lists["part_tokens"].values]), dtype=np.int64)
    return np.diff(tokens[lists["part_tokens"].starts]), np.diff(lists["labels"].starts)


class _Lists(NamedTuple):
    """A column: one list of numbers per example."""

    values: NDArray[Any]  # (numbers,) of all examples
    starts: NDArray[np.int64]  # (examples + 1,)

    def of(self, row: int) -> NDArray[Any]:
        """An example's numbers."""
        return self.values[self.starts[row] : self.starts[row + 1]]


def _read(path: Path, columns: Iterable[str]) -> dict[str, _Lists]:
    """Columns of a file, one after the other, so that Arrow holds a copy of one at most."""
    pyarrow = _pyarrow()
    lists = {}
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for name in columns:
                chunks = file.read([name])[name].chunks
                # Concatenating copies: PyTorch wants arrays that may be written to, and Arrow's may not.
                values = np.concatenate([chunk.flatten().to_numpy() for chunk in chunks], dtype=COLUMNS[name])
                lengths = np.concatenate([np.diff(chunk.offsets.to_numpy()) for chunk in chunks])
                lists[name] = _Lists(values, np.cumsum(np.concatenate([[0], lengths]), dtype=np.int64))
    except (OSError, pyarrow.ArrowException) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    pyarrow.default_memory_pool().release_unused()  # Arrow would keep several files' worth of freed memory
    return lists


def _width(path: Path) -> int:
    return int(_pyarrow().parquet.read_schema(path).metadata[_WIDTH.encode()])


def _pyarrow() -> Any:  # noqa: ANN401 - a module without types
    try:
        import pyarrow  # noqa: ICN001, PLC0415 - an optional dependency, named in full
        import pyarrow.parquet  # noqa: PLC0415 - as above
    except ImportError as error:
        raise MissingDependency(
            "examples that outgrow memory, or are shared by several processes, take pyarrow: "
            "pip install 'exitstream[pretrained]'"
        ) from error
    return pyarrow
