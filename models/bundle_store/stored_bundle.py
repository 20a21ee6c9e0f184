"""A bundle at an address, as its manifest tells it; nothing else of it has been read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from models.bundle_manifest import MANIFEST, MAX_MANIFEST_BYTES, Manifest, checked_manifest
from models.bundle_store.files import Files

PUT_AGAIN: Final = "remove it and put the bundle there again"
"""What to do about one that is damaged."""


@dataclass(frozen=True, slots=True)
class StoredBundle:
    """A complete bundle: its manifest is there, which is uploaded last.

    Attributes:
        files: at the address.
        folder: the bundle's in it; empty if the address is the bundle's own.
        content: of the manifest's file.
        manifest: read from it and checked.
    """

    files: Files
    folder: str
    content: bytes
    manifest: Manifest

    @property
    def version(self) -> str:
        """The model version."""
        return self.manifest.model_version

    @property
    def place(self) -> str:
        """Where it is, for errors."""
        return _joined(self.files.address.rstrip("/"), self.folder)

    def path(self, name: str) -> str:
        """The name that one of its files has in `files`."""
        return _joined(self.folder, name)


def stored_bundle(files: Files, folder: str = "") -> StoredBundle | None:
    """The bundle in a folder of an address; None while it is not complete.

    Raises:
        BundleError: the manifest cannot be read, is corrupt, or of a format that this version cannot read.
    """
    content = files.read(_joined(folder, MANIFEST), MAX_MANIFEST_BYTES)
    if content is None:
        return None
    manifest = checked_manifest(content, _joined(files.address.rstrip("/"), folder), PUT_AGAIN)
    return StoredBundle(files, folder, content, manifest)


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)
