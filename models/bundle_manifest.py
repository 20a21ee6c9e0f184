"""The manifest of a bundle, and the checks that come before any other file of it is parsed.

A bundle is material from elsewhere: its files, their names and sizes are checked against the manifest, the manifest
against itself, and whatever then fails in a parser ends in one `BundleError` that names bundle and file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import msgspec

from runtime.errors import BundleError

FORMAT_VERSION: Final = 7
"""The latest. 2 added the golden requests, 3 the statistics of attributes, 4 the prompt's template, 5 the statistics of
grades, 6 the length of histories and what a user's whole past tells of a candidate, 7 templates that sum lines:
earlier programs could not read such bundles. This one reads all seven.
"""
FORMAT_WITHOUT_SUMS: Final = 6
"""What a bundle whose template sums no lines is written in: programs from before that read it."""
MANIFEST: Final = "bundle.json"
GOLDEN: Final = "golden.json"
PROMPT: Final = "prompt.json"
FILES: Final = frozenset(
    {
        "backbone/config.json",
        "backbone/model.safetensors",
        "calibration.json",
        "exits.json",
        "exits.safetensors",
        "graph.safetensors",
        "items.json",
        "tokenizer.json",
    }
)
"""The files that every bundle has besides its manifest."""
ALL_FILES: Final = FILES | {GOLDEN, PROMPT}
"""All that a bundle may have: those of format 1 have no golden requests, those up to format 3 no template. There are no
others: none that holds code, none outside the folder.
"""
MAX_MANIFEST_BYTES: Final = 1_048_576
_REMEDY: Final = "copy it again or retrain it"
_MAX_CAUSE_CHARACTERS: Final = 300

Limit = Annotated[int, msgspec.Meta(ge=0, le=4_096)]


class FileEntry(msgspec.Struct, frozen=True):
    """What the manifest says about a file."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """The manifest. Further fields are informative and not read."""

    format_version: int
    model_version: str
    dataset: str
    metrics: dict[str, float]
    prompt_limits: dict[str, Limit]
    files: dict[str, FileEntry]
    created_time_ms: int = 0
    """When it was saved, Unix time in milliseconds; 0 in bundles of format 1."""

    @property
    def bytes(self) -> int:
        """Size of all files but the manifest."""
        return sum(entry.bytes for entry in self.files.values())


class _Format(msgspec.Struct):
    format_version: int


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle, checked in itself. The other files are not looked at.

    Raises:
        BundleError: it is missing or corrupt, or its format is newer than this version reads.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"no model bundle in {folder}: {MANIFEST} is missing; train one with `exitstream train`")
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise _corrupt(folder, f"{MANIFEST} has more than {MAX_MANIFEST_BYTES} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise _corrupt(folder, _in_one_line(error)) from error
    return checked_manifest(content, str(folder))


def checked_manifest(content: bytes, place: str, remedy: str = _REMEDY) -> Manifest:
    """A manifest that lists the files of a bundle and no others, under the model version that follows from them.

    Args:
        content: of the file.
        place: where the bundle is, for errors.
        remedy: what to do if it is corrupt, for errors.

    Raises:
        BundleError: it is malformed, does not say that, or its format is newer than this version reads.
    """
    try:
        format_version = msgspec.json.decode(content, type=_Format).format_version
        if format_version > FORMAT_VERSION:
            raise BundleError(
                f"the bundle {place} has format {format_version}, this version reads up to {FORMAT_VERSION}; update it"
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except (ValueError, RecursionError) as error:
        raise _corrupt(place, f"{MANIFEST}: {_in_one_line(error)}", remedy) from error
    if missing := FILES - set(manifest.files):
        raise _corrupt(place, f"{MANIFEST} does not list {', '.join(sorted(missing))}", remedy)
    if unknown := set(manifest.files) - ALL_FILES:
        raise _corrupt(place, f"{MANIFEST} lists {min(unknown)!r:.100}, which is no part of a bundle", remedy)
    if manifest.model_version != model_version(manifest.files, manifest.prompt_limits):
        raise _corrupt(place, f"{MANIFEST} names a model_version that is not that of its files", remedy)
    return manifest


def model_version(files: Mapping[str, FileEntry], limits: Mapping[str, int]) -> str:
    """A hash, 12 hexadecimal digits, of everything that changes a score."""
    content = {"files": {name: files[name].sha256 for name in sorted(files)}, "limits": dict(sorted(limits.items()))}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def verified_manifest(folder: Path) -> Manifest:
    """The manifest, after checking that the folder holds exactly the files of a bundle, each as it was saved.

    Raises:
        BundleError: a file is missing, changed, unknown, or lies elsewhere (the first such file is named), or the
            model version is not that of the files.
    """
    manifest = read_manifest(folder)
    try:
        if unlisted := _found(folder) - set(manifest.files) - {MANIFEST}:
            raise _corrupt(folder, f"{min(unlisted)!r:.100} is no part of a bundle; move it elsewhere")
        for name, expected in sorted(manifest.files.items()):
            _verify(folder, name, expected)
    except OSError as error:
        raise _corrupt(folder, _in_one_line(error)) from error
    return manifest


def file_entry(path: Path) -> FileEntry:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return FileEntry(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


@contextmanager
def reading(folder: Path, name: str) -> Iterator[None]:
    """Turns whatever the reader of a file raises into one line.

    Args:
        folder: the bundle.
        name: the file, or what of the bundle is read.

    Raises:
        BundleError: instead of any other exception.
    """
    try:
        yield
    except BundleError:
        raise
    except Exception as error:  # the parsers are others', and what they raise at malformed input is not documented
        raise BundleError(
            f"the bundle {folder} cannot be used: {name} does not fit this version of the program "
            f"({_in_one_line(error)}); retrain it"
        ) from error


def _found(folder: Path) -> set[str]:
    """Names of everything in the folder that is not a folder itself."""
    return {
        Path(place, name).relative_to(folder).as_posix()
        for place, folders, files in os.walk(folder)
        for name in (*files, *(name for name in folders if Path(place, name).is_symlink()))
    }


def _verify(folder: Path, name: str, expected: FileEntry) -> None:
    path = folder / name
    if not path.is_file():
        raise _corrupt(folder, f"{name} is missing")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise _corrupt(folder, f"{name} is a link to a place outside of it")
    if path.stat().st_size != expected.bytes or file_entry(path) != expected:
        raise _corrupt(folder, f"{name} is not what was saved")


def _corrupt(place: Path | str, finding: str, remedy: str = _REMEDY) -> BundleError:
    return BundleError(f"the bundle {place} is corrupt: {finding}; {remedy}")


def _in_one_line(error: BaseException) -> str:
    """An exception's kind and message, without line breaks and cut to a readable length."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _MAX_CAUSE_CHARACTERS else text[:_MAX_CAUSE_CHARACTERS] + "…"
