"""What an address names: a bundle's own folder, the current version of a store, or one version of it, STORE@VERSION."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from models.bundle_manifest import MANIFEST, read_manifest
from models.bundle_store.cache import BundleCache, default_cache
from models.bundle_store.files import Files
from models.bundle_store.store import BundleStore
from models.bundle_store.stored_bundle import StoredBundle, stored_bundle
from runtime.errors import BundleError

_PINNED: Final = re.compile(r"(.+)@([0-9a-f]{12})")


class _InStore(NamedTuple):
    """A version of a store, which may not be there."""

    store: BundleStore
    version: str


def resolve(address: str | Path, cache: Path | None = None) -> Path:
    """The local folder of the bundle that an address names, fetched if it is elsewhere.

    Args:
        address: a bundle's folder, a store, or STORE@VERSION; folders or fsspec addresses.
        cache: where fetched bundles are kept; None: `default_cache`.

    Raises:
        BundleError: there is no such bundle, it is damaged, or it cannot be fetched. A local folder that holds neither
            a bundle nor a store is returned as it is: loading it says what is missing.
    """
    address = str(address)
    if _is_folder_of_its_own(address):
        return _local(address)
    target = _target(address, cache)
    if isinstance(target, StoredBundle):
        return BundleCache(cache or default_cache(), address).fetch(target)
    return target.store.fetch(target.version)


def current_version(address: str | Path) -> str:
    """The model version that `resolve` would give now; cheap, nothing is fetched.

    Raises:
        BundleError: there is no such bundle, or the address cannot be read.
    """
    address = str(address)
    if _is_folder_of_its_own(address):
        return read_manifest(_local(address)).model_version
    return _target(address, None).version


def _is_folder_of_its_own(address: str) -> bool:
    """Whether this is a folder on this machine that is no store and names none: today's bundle, or nothing yet."""
    files = Files(address)
    if not files.is_local:
        return False
    if files.local_path(MANIFEST).exists():
        return True
    return not _PINNED.fullmatch(address) and not BundleStore(address).exists()


def _local(address: str) -> Path:
    """The folder as it was named, unless by a URL."""
    return Files(address).local_path("") if "://" in address else Path(address)


def _target(address: str, cache: Path | None) -> _InStore | StoredBundle:
    """A version of a store, or the bundle outside of any store that lies at the address."""
    if match := _PINNED.fullmatch(address):
        return _InStore(BundleStore(match[1], cache), match[2])
    store = BundleStore(address, cache)
    if (history := store.history()) is not None:
        return _InStore(store, history.current)
    if store.exists():
        return _InStore(store, store.current())  # raises: nothing has been promoted yet
    bundle = stored_bundle(Files(address))
    if bundle is None:
        raise BundleError(
            f"neither a bundle nor a bundle store at {address}; `exitstream bundle put FOLDER {address}` begins a store"
        )
    return bundle
