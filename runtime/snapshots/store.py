"""Snapshots of state: arrays and metadata (offsets among it) in one file, written atomically, hashed and versioned.

A folder or any fsspec address (`s3://...`, with the package that knows it) holds the newest few. Nobody may change the
arrays while they are written; that runs in a thread and mostly releases the interpreter. `runtime.snapshots.file`
defines the file.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fsspec
import structlog
from fsspec.implementations.local import LocalFileSystem

from runtime.errors import SnapshotError
from runtime.snapshots.file import Array, Corrupt, Incompatible, read_snapshot, write_snapshot

_NAME: Final = re.compile(r"snapshot-(\d{12})\.exs")
_UNFINISHED: Final = re.compile(r"snapshot-(\d{12})\.exs\.[0-9a-f]{8}\.tmp")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State as it was saved.

    Attributes:
        sequence: grows with every snapshot of its store.
        arrays: by name; writable, not shared.
        metadata: what `save` was given.
    """

    sequence: int
    arrays: dict[str, Array]
    metadata: dict[str, Any]


class SnapshotStore:
    """The snapshots of one kind of state under one address.

    Args:
        address: a folder or an fsspec address; made if missing.
        kind: what the state is; snapshots of another kind are refused.
        version: of the state's layout, as it is written.
        earlier: versions of it that can be read too; snapshots of any other are refused.
        keep: how many of the newest are kept.

    Raises:
        SnapshotError: if the address cannot be used.
    """

    def __init__(
        self, address: str | Path, *, kind: str, version: int, earlier: Collection[int] = (), keep: int = 3
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        self.address = str(address)
        self._kind = kind
        self._version = version
        self._readable = (version, *earlier)
        self._keep = keep
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address)
        except (OSError, ValueError, ImportError) as error:
            raise SnapshotError(f"snapshots cannot be kept at {self.address}: {error}") from error
        self._make_folder()
        self._is_local = isinstance(self._files, LocalFileSystem)

    async def save(self, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> int:
        """`save_now` in a thread: the event loop goes on."""
        return await asyncio.to_thread(self.save_now, arrays, metadata)

    def save_now(self, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> int:
        """Writes a snapshot, then removes those beyond `keep`. A reader sees all of it or nothing.

        Args:
            arrays: of numbers, contiguous or not; not to be changed until this returns.
            metadata: anything JSON can hold.

        Returns:
            Its sequence number.

        Raises:
            SnapshotError: if it cannot be written; those before are untouched.
        """
        header = {"kind": self._kind, "version": self._version, "metadata": dict(metadata)}
        self._make_folder()
        sequence = max(self.sequences(), default=0) + 1
        path = self._path(sequence)
        try:
            if self._is_local:
                _write_atomically(Path(path), header, arrays)
            else:
                self._upload(path, header, arrays)
        except OSError as error:
            raise SnapshotError(f"a snapshot cannot be written to {path}: {error}") from error
        self._prune()
        return sequence

    async def load_latest(self) -> Snapshot | None:
        """`load_latest_now` in a thread."""
        return await asyncio.to_thread(self.load_latest_now)

    def load_latest_now(self) -> Snapshot | None:
        """The newest usable snapshot, or None; each refused one is logged with the reason.

        Raises:
            SnapshotError: if the address cannot be read at all.
        """
        for sequence in sorted(self.sequences(), reverse=True):
            try:
                return self.load(sequence)
            except SnapshotError as error:
                log.warning("snapshot refused", cause=str(error))
        return None

    def load(self, sequence: int) -> Snapshot:
        """One snapshot.

        Raises:
            SnapshotError: if it is missing, corrupt, or of another kind or version.
        """
        path = self._path(sequence)
        try:
            with self._local_copy(path) as file:
                header, arrays = read_snapshot(file, expect={"kind": (self._kind,), "version": self._readable})
        except FileNotFoundError as error:
            raise SnapshotError(f"{path} does not exist") from error
        except Corrupt as error:
            raise SnapshotError(f"{path} is corrupt ({error}); it was not used") from error
        except MemoryError as error:
            raise SnapshotError(f"{path} takes more memory than there is; it was not used") from error
        except Incompatible as error:
            raise SnapshotError(f"{path} is incompatible ({error}); it was not used") from error
        except OSError as error:
            raise SnapshotError(f"{path} cannot be read: {error}") from error
        if not isinstance(header.get("metadata"), dict):
            raise SnapshotError(f"{path} is corrupt (it has no metadata); it was not used")
        return Snapshot(sequence, arrays, header["metadata"])

    def sequences(self) -> list[int]:
        """The sequence numbers that exist, usable or not.

        Raises:
            SnapshotError: if the address cannot be listed.
        """
        try:
            self._files.invalidate_cache(self._root)
            names = [Path(path).name for path in self._files.ls(self._root, detail=False)]
        except OSError as error:
            raise SnapshotError(f"the snapshots at {self.address} cannot be listed: {error}") from error
        return [int(match[1]) for name in names if (match := _NAME.fullmatch(name))]

    def _make_folder(self) -> None:
        """Makes the folder at the start, and again should it vanish later."""
        try:
            self._files.makedirs(self._root, exist_ok=True)
        except OSError as error:
            raise SnapshotError(f"snapshots cannot be kept at {self.address}: {error}") from error

    def _path(self, sequence: int) -> str:
        return f"{self._root}/snapshot-{sequence:012d}.exs"

    def _upload(self, path: str, header: dict[str, Any], arrays: Mapping[str, Array]) -> None:
        """Object stores show an object only when it is complete; elsewhere the hash finds one that is cut off."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "snapshot"
            write_snapshot(local, header, arrays)
            self._files.put_file(str(local), path)

    @contextmanager
    def _local_copy(self, path: str) -> Iterator[Path]:
        if self._is_local:
            yield Path(path)
            return
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "snapshot"
            self._files.get_file(path, str(local))
            yield local

    def _prune(self) -> None:
        """Removes what is beyond `keep`, and what writers of earlier ones left unfinished."""
        sequences = sorted(self.sequences(), reverse=True)
        unfinished = [
            path
            for path in map(str, self._files.ls(self._root, detail=False))
            if (match := _UNFINISHED.fullmatch(Path(path).name)) and int(match[1]) < sequences[0]
        ]
        for path in [*map(self._path, sequences[self._keep :]), *unfinished]:
            try:
                self._files.rm(path)
            except FileNotFoundError:
                continue  # another writer was quicker
            except OSError as error:
                log.warning("an old snapshot cannot be removed", path=path, cause=str(error))


def _write_atomically(path: Path, header: dict[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write a temporary file, fsync, rename, fsync the folder: after a crash the file is complete or absent."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")  # its own: others may write at the same time
    try:
        write_snapshot(beside, header, arrays)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
