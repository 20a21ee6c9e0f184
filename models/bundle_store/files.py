"""Files at an address, a folder or any fsspec URL. Every error of a storage library ends here, as a `BundleError`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from runtime.errors import BundleError


class Files:
    """The files below an address. Names are relative to it, with `/`.

    Args:
        address: a folder or an fsspec address (`s3://...`, with the package that knows it). It need not exist.

    Raises:
        BundleError: no installed package knows such addresses.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        with self._telling("cannot be used"):
            self._files, root = fsspec.core.url_to_fs(address)
        self._root = root.rstrip("/") or root
        self.is_local = isinstance(self._files, LocalFileSystem)

    def local_path(self, name: str) -> Path:
        """Where a file or folder is on this machine, if the address is local."""
        return Path(self._path(name))

    def names(self, folder: str) -> list[str]:
        """Names of what is in a folder, sorted; none if it does not exist.

        Raises:
            BundleError: it cannot be listed.
        """
        with self._telling(f"cannot be listed: {folder}"):
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._path(folder), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is none.

        Raises:
            BundleError: it cannot be looked at.
        """
        with self._telling(f"cannot be read: {name}"):
            try:
                return int(self._files.info(self._path(name))["size"])
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read(self, name: str, limit: int) -> bytes | None:
        """The content of a small file; None if there is none.

        Args:
            name: of the file.
            limit: in bytes; a larger file is an error, before it is read.

        Raises:
            BundleError: it is too large, or cannot be read.
        """
        size = self.size(name)
        if size is not None and size > limit:
            raise BundleError(f"{self._path(name)} has {size} bytes, more than the {limit} that it may have")
        with self._telling(f"cannot be read: {name}"):
            try:
                return bytes(self._files.cat_file(self._path(name)))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def download(self, name: str, to: Path) -> None:
        """Copy a file to this machine.

        Raises:
            BundleError: it is missing or cannot be read.
        """
        with self._telling(f"cannot be read: {name}"):
            self._files.get_file(self._path(name), str(to))

    def upload(self, source: Path, name: str) -> None:
        """Copy a file from this machine, over one of the same name. A reader sees all of it or none.

        Raises:
            BundleError: it cannot be written.
        """
        with self._telling(f"cannot be written: {name}"):
            if self.is_local:
                with self._beside(name) as beside:
                    shutil.copyfile(source, beside)
                    _sync(beside)
                    beside.replace(self._path(name))
            else:  # object stores show an object only when it is complete
                self._files.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(source), self._path(name))

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that must not exist yet; whole or not at all.

        Returns:
            Whether this call made it; False if another file has the name.

        Raises:
            BundleError: it cannot be written.
        """
        with self._telling(f"cannot be written: {name}"):
            try:
                if self.is_local:
                    with self._beside(name) as beside:
                        beside.write_bytes(content)
                        _sync(beside)
                        os.link(beside, self._path(name))
                else:
                    self._files.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
                    self._files.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
            # Not every storage refuses to overwrite, and some say so in their own way: what is there now decides.
            return bytes(self._files.cat_file(self._path(name))) == content

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextmanager
    def _beside(self, name: str) -> Iterator[Path]:
        """A temporary file on the same file system, outside of the versions, removed afterwards."""
        self.local_path(name).parent.mkdir(parents=True, exist_ok=True)
        number, path = tempfile.mkstemp(prefix=".unfinished-", dir=self._root)
        os.close(number)
        Path(path).chmod(0o644)  # others read what one person puts
        try:
            yield Path(path)
        finally:
            Path(path).unlink(missing_ok=True)

    @contextmanager
    def _telling(self, trouble: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each storage library has exceptions of its own, not all of them OSErrors
            cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise BundleError(f"the bundle store {self.address} {trouble} ({cause})") from error


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
