"""A store of bundles: put a version there, make one current, go back, fetch one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from models.bundle_manifest import MANIFEST, Manifest, verified_manifest
from models.bundle_store.cache import BundleCache, default_cache
from models.bundle_store.files import Files
from models.bundle_store.promotions import History, Promotion, continued, version_before
from models.bundle_store.stored_bundle import PUT_AGAIN, StoredBundle, stored_bundle
from runtime.clock import Clock, SystemClock
from runtime.errors import BundleError

PROMOTIONS: Final = "promotions"
VERSIONS: Final = "versions"
_NUMBERED: Final = re.compile(r"(\d{6})\.json")
_MAX_HISTORY_BYTES: Final = 1_048_576


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version of a store.

    Attributes:
        version: the model version.
        manifest: of the bundle; None if it cannot be read.
        is_current: whether it is the one in force.
        trouble: why the manifest cannot be read; empty if it can.
    """

    version: str
    manifest: Manifest | None
    is_current: bool
    trouble: str = ""


class BundleStore:
    """The bundles under one address.

    Args:
        address: a folder or an fsspec address; made with the first bundle.
        cache: folder for fetched versions; None: `default_cache`.
        clock: tells the times of promotions.

    Raises:
        BundleError: no installed package knows such addresses.
    """

    def __init__(self, address: str | Path, cache: Path | None = None, clock: Clock | None = None) -> None:
        self.address = str(address)
        self._files = Files(self.address)
        self._cache = cache
        self._clock = clock or SystemClock()

    def exists(self) -> bool:
        """Whether there is a store here.

        Raises:
            BundleError: the address cannot be read.
        """
        return bool(self._files.names(PROMOTIONS) or self._files.names(VERSIONS))

    def versions(self) -> list[StoredVersion]:
        """All complete versions, oldest first.

        Raises:
            BundleError: the address cannot be read.
        """
        history = self.history()
        current = None if history is None else history.current
        found = []
        for version in self._files.names(VERSIONS):
            try:
                bundle = self._bundle(version)
            except BundleError as error:
                found.append(StoredVersion(version, None, version == current, str(error)))
            else:
                if bundle is not None:
                    found.append(StoredVersion(version, bundle.manifest, version == current))
        return sorted(found, key=lambda one: 0 if one.manifest is None else one.manifest.created_time_ms)

    def history(self) -> History | None:
        """The current version and the promotions that led to it; None before the first.

        Raises:
            BundleError: it is corrupt, or the address cannot be read.
        """
        number = self._last_number()
        return self._history(number) if number else None

    def current(self) -> str:
        """The version in force. Costs a listing and one small file.

        Raises:
            BundleError: there is none, or the address cannot be read.
        """
        history = self.history()
        if history is None:
            raise BundleError(
                f"no version of the bundle store {self.address} has been promoted; "
                f"`exitstream bundle promote {self.address} VERSION` makes one current"
            )
        return history.current

    def put(self, folder: Path) -> tuple[str, bool]:
        """Upload a bundle. It appears once it is complete, and is not current before it is promoted.

        Returns:
            Its version, and whether it was uploaded: False if the store has it already.

        Raises:
            BundleError: the bundle is damaged, the store has another of this version, or it cannot be written.
        """
        manifest = verified_manifest(folder)
        version = manifest.model_version
        if (bundle := self._bundle(version)) is not None:
            stored = bundle.manifest
            if (stored.files, stored.prompt_limits) != (manifest.files, manifest.prompt_limits):
                raise BundleError(
                    f"{self.address} has another bundle of version {version}; versions are never overwritten"
                )
            return version, False
        for name in (*sorted(manifest.files), MANIFEST):  # the manifest last: with it the version exists
            self._files.upload(folder / name, f"{VERSIONS}/{version}/{name}")
        return version, True

    def promote(self, version: str, by: str) -> History:
        """Make a version the current one.

        Args:
            version: one of the store's.
            by: who does it, for the history.

        Raises:
            BundleError: there is no such version, or another was promoted at the same time.
        """
        return self._follow(self._last_number(), version, by, "promotion")

    def roll_back(self, by: str, to: str | None = None) -> History:
        """Return to the version that was in force before, or to any.

        Args:
            by: who does it, for the history.
            to: the version; None: the one before. Rolled back again, it is the one before that.

        Raises:
            BundleError: there is no such version, or another was promoted at the same time.
        """
        number = self._last_number()
        if not number:
            raise BundleError(f"nothing to roll back: no version of {self.address} has been promoted")
        return self._follow(number, to or version_before(self._history(number)), by, "rollback")

    def fetch(self, version: str) -> Path:
        """A folder with a version: that of the store if it is local, a verified copy in the cache otherwise.

        Raises:
            BundleError: there is no such version, it is damaged, or it cannot be kept.
        """
        bundle = self._require(version)
        if self._files.is_local:
            return self._files.local_path(bundle.folder)
        return BundleCache(self._cache or default_cache(), self.address).fetch(bundle)

    def _follow(self, last: int, version: str, by: str, kind: str) -> History:
        """Writes the promotion that comes after number `last`, unless there is one by now."""
        self._require(version)
        entry = msgspec.convert(
            {"version": version, "time_ms": self._clock.wall_ms(), "by": by, "kind": kind}, type=Promotion
        )
        history = continued(self._history(last) if last else None, entry)
        content = msgspec.json.format(msgspec.json.encode(history), indent=1) + b"\n"
        if not self._files.create(f"{PROMOTIONS}/{last + 1:06d}.json", content):
            raise BundleError(
                f"another version of {self.address} was promoted at the same time; `exitstream bundle list "
                f"{self.address}` tells which; do it again if it is still wanted"
            )
        return history

    def _require(self, version: str) -> StoredBundle:
        if (bundle := self._bundle(version)) is not None:
            return bundle
        known = ", ".join(one.version for one in self.versions() if one.manifest is not None) or "none"
        raise BundleError(f"{self.address} has no complete version {version!r:.60}; it has: {known}")

    def _bundle(self, version: str) -> StoredBundle | None:
        """The bundle of a version; None while it is not complete."""
        if not re.fullmatch("[0-9a-f]{12}", version):
            return None
        bundle = stored_bundle(self._files, f"{VERSIONS}/{version}")
        if bundle is not None and bundle.version != version:
            raise BundleError(f"{bundle.place} holds version {bundle.version}; {PUT_AGAIN}")
        return bundle

    def _last_number(self) -> int:
        """The number of the last promotion; 0 before the first."""
        numbers = [int(match[1]) for name in self._files.names(PROMOTIONS) if (match := _NUMBERED.fullmatch(name))]
        return max(numbers, default=0)

    def _history(self, number: int) -> History:
        name = f"{PROMOTIONS}/{number:06d}.json"
        content = self._files.read(name, _MAX_HISTORY_BYTES)
        try:
            return msgspec.json.decode(content or b"", type=History)
        except (ValueError, RecursionError) as error:
            raise BundleError(
                f"{self.address}/{name} is corrupt: {error}; remove it, and the promotion before it holds again"
            ) from error
