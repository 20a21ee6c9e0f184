"""Bundles fetched from elsewhere, in a folder of this machine. Hashes are checked before one appears there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from models.bundle_manifest import MANIFEST, verified_manifest
from models.bundle_store.stored_bundle import PUT_AGAIN, StoredBundle
from runtime.errors import BundleError

KEPT: Final = 3
"""Versions of one store that are kept, those used last."""
UNFINISHED: Final = ".unfinished-"
_UNFINISHED_KEPT_S: Final = 86_400.0
"""A download that is older has no program any more."""


def default_cache() -> Path:
    """`exitstream/bundles` in the user's folder for caches: `$XDG_CACHE_HOME`, or else `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exitstream" / "bundles"


class BundleCache:
    """The fetched versions of one store.

    Args:
        folder: of all stores.
        address: of this one. Each has a folder of its own: a store cannot pass its files off as another's.
    """

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder / hashlib.sha256(address.encode()).hexdigest()[:16]

    def fetch(self, bundle: StoredBundle) -> Path:
        """The folder of a version, downloaded unless it is there and whole.

        Raises:
            BundleError: it cannot be downloaded or kept, or is not what its manifest says.
        """
        target = self._folder / bundle.version
        if not _is_whole(target, bundle.version):
            with self._unfinished() as folder:
                _download(bundle, folder)
                _move(folder, target, bundle.version)
        os.utime(target)
        self._prune()
        return target

    @contextmanager
    def _unfinished(self) -> Iterator[Path]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self._folder))
        except OSError as error:
            raise BundleError(
                f"fetched bundles cannot be kept in {self._folder}: {error}; set XDG_CACHE_HOME to a writable folder"
            ) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _prune(self) -> None:
        """Removes the versions that were not used for longest, and what a program that died left unfinished."""
        found = list(self._folder.iterdir())
        versions = [path for path in found if not path.name.startswith(UNFINISHED)]
        unfinished_since = time.time() - _UNFINISHED_KEPT_S
        for path in found:
            if path not in versions and path.stat().st_mtime < unfinished_since:
                shutil.rmtree(path, ignore_errors=True)
        for path in sorted(versions, key=lambda path: path.stat().st_mtime_ns, reverse=True)[KEPT:]:
            shutil.rmtree(path, ignore_errors=True)


def _is_whole(folder: Path, version: str) -> bool:
    """Whether a version is there as it was downloaded; a damaged one is fetched again."""
    if not folder.exists():
        return False
    try:
        return verified_manifest(folder).model_version == version
    except BundleError:
        return False


def _download(bundle: StoredBundle, to: Path) -> None:
    """Downloads what the manifest lists, and nothing larger than it says."""
    for name, expected in sorted(bundle.manifest.files.items()):
        if (size := bundle.files.size(bundle.path(name))) != expected.bytes:
            found = "is missing" if size is None else f"has {size} bytes instead of {expected.bytes}"
            raise BundleError(f"the bundle {bundle.place} is damaged: {name} {found}; {PUT_AGAIN}")
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        bundle.files.download(bundle.path(name), to / name)
    (to / MANIFEST).write_bytes(bundle.content)
    try:
        verified_manifest(to)
    except BundleError as error:
        raise BundleError(f"the bundle fetched from {bundle.place} is not whole: {error}") from error


def _move(folder: Path, target: Path, version: str) -> None:
    """Gives a complete folder its name, in place of a damaged one; another process may have been faster."""
    try:
        if target.exists() and not _is_whole(target, version):
            shutil.rmtree(target)
        if not target.exists():
            folder.rename(target)
    except OSError as error:
        if not _is_whole(target, version):
            raise BundleError(f"the fetched bundle {target} cannot be kept: {error}") from error
