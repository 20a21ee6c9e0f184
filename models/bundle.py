"""The model bundle: one folder with everything that serving needs, versions and hashes over all of it, no pickle.

    bundle.json            format and model version, the files' sizes and hashes, settings, where it came from, metrics
    backbone/              the decoder, as transformers reads it (config.json, model.safetensors)
    exits.json             exit layers and widths
    exits.safetensors      soft-token projections and heads
    tokenizer.json
    graph.safetensors      items' base embeddings, layer weights, the map from words
    items.json             the items' ids, in the order of their base embeddings
    calibration.json

The model version is a hash over the files' hashes: two bundles of the same version score alike.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from models.calibration import ExitCalibration
from models.exit_model import ExitModel, UnsupportedBackbone
from models.graph_base import GraphBase
from models.prompt import PromptBuilder, PromptLimits
from models.text import Text
from runtime.errors import BundleError

FORMAT_VERSION: Final = 1
MANIFEST: Final = "bundle.json"
_GRAPH_ARRAYS: Final = ("alphas", "item_embeddings", "word_vectors", "word_bias")


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained model, whole.

    Args:
        model: the exit transformer.
        calibration: what its logits mean, and when to leave.
        graph: what LightGCN starts from.
        text: the tokenizer.
        limits: how much evidence its prompts show.
        dataset: name of the data it was trained on.
        metrics: figures of the evaluation that went with the training.
        version: the model version; empty until saved or loaded.
    """

    model: ExitModel
    calibration: ExitCalibration
    graph: GraphBase
    text: Text
    limits: PromptLimits
    dataset: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    version: str = ""

    def prompt_builder(self) -> PromptBuilder:
        """The prompt builder that this model was trained with."""
        return PromptBuilder(self.text, self.graph.dim, self.limits)

    def save(self, folder: Path) -> Bundle:
        """Write the folder; a bundle that is there already is replaced only once the new one is complete.

        Returns:
            This bundle with its version.

        Raises:
            BundleError: the folder cannot be written, or holds something that is no bundle.
        """
        if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
            raise BundleError(f"{folder} holds files that are no bundle; give an empty or new folder")
        unfinished = folder.with_name(folder.name + ".unfinished")
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            self._write_parts(unfinished)
            version = self._write_manifest(unfinished)
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
        except OSError as error:
            raise BundleError(f"cannot write the bundle {folder}: {error}") from error
        return replace(self, version=version)

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> Bundle:
        """What `save` wrote, every file compared with its hash first.

        Args:
            folder: the bundle.
            dtype: number format of the model's weights in memory.

        Raises:
            BundleError: the bundle is missing, torn, changed, or of a format that this program cannot read.
        """
        manifest = read_manifest(folder)
        _verify_files(folder, manifest["files"])
        try:
            return cls(
                model=ExitModel.load(folder, dtype),
                calibration=ExitCalibration.from_json((folder / "calibration.json").read_text()),
                graph=_load_graph(folder),
                text=Text.load(folder / "tokenizer.json"),
                limits=PromptLimits(**manifest["prompt_limits"]),
                dataset=manifest["dataset"],
                metrics=manifest["metrics"],
                version=manifest["model_version"],
            )
        except (UnsupportedBackbone, SafetensorError, ValueError, TypeError, KeyError, OSError) as error:
            raise BundleError(f"the bundle {folder} cannot be used by this program: {error}; train it anew") from error

    def _write_parts(self, folder: Path) -> None:
        self.model.save(folder)
        self.text.save(folder / "tokenizer.json")
        (folder / "calibration.json").write_text(self.calibration.to_json())
        arrays = {name: np.ascontiguousarray(getattr(self.graph, name)) for name in _GRAPH_ARRAYS}
        save_file(arrays, str(folder / "graph.safetensors"))
        (folder / "items.json").write_text(json.dumps(list(self.graph.item_ids), ensure_ascii=True))

    def _write_manifest(self, folder: Path) -> str:
        files = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        limits = asdict(self.limits)
        version = model_version(files, limits)
        manifest = {
            "format_version": FORMAT_VERSION,
            "model_version": version,
            "dataset": self.dataset,
            "metrics": dict(self.metrics),
            "prompt_limits": limits,
            "embedding_dim": self.graph.dim,
            "exit_layers": list(self.model.config.exit_layers),
            "files": files,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        return version


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


def _verify_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Every file is there and as it was written.

    Raises:
        BundleError: the first that is not.
    """
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"the bundle {folder} is torn: {name} is missing; copy it whole or train it anew")
        if path.stat().st_size != expected["bytes"] or _sha256(path) != expected["sha256"]:
            raise BundleError(
                f"the bundle {folder} is torn: {name} is not what was saved; copy it whole or train it anew"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_graph(folder: Path) -> GraphBase:
    arrays = load_file(str(folder / "graph.safetensors"))
    if set(arrays) != set(_GRAPH_ARRAYS):
        raise ValueError(f"graph.safetensors holds {sorted(arrays)}, expected {sorted(_GRAPH_ARRAYS)}")
    return GraphBase(item_ids=json.loads((folder / "items.json").read_text()), **arrays)
