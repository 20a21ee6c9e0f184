"""The files of a bundle: manifest, hashes, and the graph part, which loads without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.numpy import load_file

from models.graph_base import GraphBase
from models.text import Text
from runtime.errors import BundleError

FORMAT_VERSION: Final = 1
MANIFEST: Final = "bundle.json"
GRAPH_ARRAYS: Final = ("alphas", "item_embeddings", "word_vectors", "word_bias")


@dataclass(frozen=True, eq=False)
class GraphPart:
    """The part of a bundle that the graph updater needs; neither torch nor the model's weights are loaded.

    Args:
        graph: base embeddings and layer weights of LightGCN.
        text: the tokenizer.
        version: the model version.
    """

    graph: GraphBase
    text: Text
    version: str

    @classmethod
    def load(cls, folder: Path) -> GraphPart:
        """Read from a bundle, after checking the hash of every file.

        Raises:
            BundleError: the bundle is missing, corrupt, or of a format that this version cannot read.
        """
        manifest = read_manifest(folder)
        verify_files(folder, manifest["files"])
        try:
            text = Text.load(folder / "tokenizer.json")
            return cls(load_graph(folder), text, manifest["model_version"])
        except (SafetensorError, ValueError, TypeError, KeyError, OSError) as error:
            raise BundleError(
                f"the bundle {folder} does not fit this version of the program: {error}; retrain it"
            ) from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle. The other files are not checked.

    Raises:
        BundleError: it is missing or corrupt, or its format is newer than this version reads.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        format_version = int(manifest["format_version"])
    except FileNotFoundError as error:
        raise BundleError(
            f"no model bundle in {folder}: {MANIFEST} is missing; train one with `exitstream train`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} is corrupt: {error!r}; retrain the bundle") from error
    if format_version > FORMAT_VERSION:
        raise BundleError(
            f"the bundle {folder} has format {format_version}, this version reads up to {FORMAT_VERSION}; update it"
        )
    missing = {"model_version", "dataset", "metrics", "prompt_limits", "files"} - set(manifest)
    if missing:
        raise BundleError(f"{path} is corrupt: {', '.join(sorted(missing))} missing; retrain the bundle")
    return manifest


def model_version(files: Mapping[str, Mapping[str, Any]], limits: Mapping[str, int]) -> str:
    """A hash, 12 hexadecimal digits, of everything that changes a score."""
    content = {"files": {name: files[name]["sha256"] for name in sorted(files)}, "limits": dict(sorted(limits.items()))}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def verify_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that every file exists and is as it was saved.

    Raises:
        BundleError: a file is missing or changed; the first such file is named.
    """
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"the bundle {folder} is corrupt: {name} is missing; copy it again or retrain it")
        if path.stat().st_size != expected["bytes"] or sha256(path) != expected["sha256"]:
            raise BundleError(
                f"the bundle {folder} is corrupt: {name} is not what was saved; copy it again or retrain it"
            )


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_graph(folder: Path) -> GraphBase:
    """Read the graph part of a bundle, without checking hashes.

    Raises:
        ValueError: the files do not hold the expected arrays.
        OSError: the files cannot be read.
    """
    arrays = load_file(str(folder / "graph.safetensors"))
    if set(arrays) != set(GRAPH_ARRAYS):
        raise ValueError(f"graph.safetensors holds {sorted(arrays)}, expected {sorted(GRAPH_ARRAYS)}")
    return GraphBase(item_ids=json.loads((folder / "items.json").read_text()), **arrays)
