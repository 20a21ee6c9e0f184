"""A bundle's folder as files: the manifest, hashes, and the graph's part, which can be had without torch."""

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
    """What keeping the graph fresh needs of a bundle: neither torch nor the model's weights are loaded for it.

    Args:
        graph: what LightGCN starts from.
        text: the tokenizer.
        version: the model version.
    """

    graph: GraphBase
    text: Text
    version: str

    @classmethod
    def load(cls, folder: Path) -> GraphPart:
        """From a bundle's folder, every file compared with its hash first.

        Raises:
            BundleError: the bundle is missing, torn, changed, or of a format that this program cannot read.
        """
        manifest = read_manifest(folder)
        verify_files(folder, manifest["files"])
        try:
            text = Text.load(folder / "tokenizer.json")
            return cls(load_graph(folder), text, manifest["model_version"])
        except (SafetensorError, ValueError, TypeError, KeyError, OSError) as error:
            raise BundleError(f"the bundle {folder} cannot be used by this program: {error}; train it anew") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The bundle's manifest, without its files being looked at.

    Raises:
        BundleError: there is none, it is torn, or its format is newer than this program.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        format_version = int(manifest["format_version"])
    except FileNotFoundError as error:
        raise BundleError(
            f"no model bundle in {folder}: {MANIFEST} is missing; make one with `exitstream train`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} is torn or no bundle's manifest: {error!r}; train the bundle anew") from error
    if format_version > FORMAT_VERSION:
        raise BundleError(
            f"the bundle {folder} has format {format_version}, this program reads up to {FORMAT_VERSION}; update it"
        )
    missing = {"model_version", "dataset", "metrics", "prompt_limits", "files"} - set(manifest)
    if missing:
        raise BundleError(f"{path} is torn: it lacks {', '.join(sorted(missing))}; train the bundle anew")
    return manifest


def model_version(files: Mapping[str, Mapping[str, Any]], limits: Mapping[str, int]) -> str:
    """Twelve hexadecimal digits that stand for everything that changes a score."""
    content = {"files": {name: files[name]["sha256"] for name in sorted(files)}, "limits": dict(sorted(limits.items()))}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def verify_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Every file is there and as it was written.

    Raises:
        BundleError: the first that is not.
    """
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"the bundle {folder} is torn: {name} is missing; copy it whole or train it anew")
        if path.stat().st_size != expected["bytes"] or sha256(path) != expected["sha256"]:
            raise BundleError(
                f"the bundle {folder} is torn: {name} is not what was saved; copy it whole or train it anew"
            )


def sha256(path: Path) -> str:
    """The file's hash, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_graph(folder: Path) -> GraphBase:
    """The graph's part of a bundle, its files taken as they are.

    Raises:
        ValueError: they do not hold what belongs there.
        OSError: they cannot be read.
    """
    arrays = load_file(str(folder / "graph.safetensors"))
    if set(arrays) != set(GRAPH_ARRAYS):
        raise ValueError(f"graph.safetensors holds {sorted(arrays)}, expected {sorted(GRAPH_ARRAYS)}")
    return GraphBase(item_ids=json.loads((folder / "items.json").read_text()), **arrays)
