"""The model bundle: a folder with everything that serving needs. Every file is hashed; nothing is pickled.

    bundle.json            format and model version, sizes and hashes of the files, prompt limits, data set, metrics
    backbone/              the decoder, as transformers reads it (config.json, model.safetensors)
    exits.json             exit layers and widths
    exits.safetensors      soft-token projections and heads
    tokenizer.json
    graph.safetensors      base embeddings of items, layer weights, the map from words to embeddings
    items.json             the items' ids, in the order of their base embeddings
    calibration.json

The model version is a hash of the hashes: bundles of the same version give the same scores.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file

from models.backbone import UnsupportedBackbone
from models.bundle_files import (
    FORMAT_VERSION,
    GRAPH_ARRAYS,
    MANIFEST,
    load_graph,
    model_version,
    read_manifest,
    sha256,
    verify_files,
)
from models.calibration import ExitCalibration
from models.exit_model import ExitModel
from models.graph_base import GraphBase
from models.prompt import PromptBuilder, PromptLimits
from models.text import Text
from runtime.errors import BundleError

__all__ = ["MANIFEST", "Bundle", "read_manifest"]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained model with everything it needs to score.

    Args:
        model: the exit transformer.
        calibration: turns its logits into click-through rates and decides exits.
        graph: base embeddings and layer weights of LightGCN.
        text: the tokenizer.
        limits: how much evidence goes into a prompt.
        dataset: name of the data it was trained on.
        metrics: figures of the evaluation at the end of training.
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
        """Write the folder. An existing bundle is replaced only once the new one is complete.

        Returns:
            This bundle with its version.

        Raises:
            BundleError: the folder cannot be written, or holds files that are not a bundle.
        """
        if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
            raise BundleError(f"{folder} holds files that are not a bundle; choose an empty or new folder")
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
        """Read what `save` wrote, after checking the hash of every file.

        Args:
            folder: the bundle.
            dtype: number format of the weights in memory.

        Raises:
            BundleError: the bundle is missing, corrupt, or of a format that this version cannot read.
        """
        manifest = read_manifest(folder)
        verify_files(folder, manifest["files"])
        try:
            return cls(
                model=ExitModel.load(folder, dtype),
                calibration=ExitCalibration.from_json((folder / "calibration.json").read_text()),
                graph=load_graph(folder),
                text=Text.load(folder / "tokenizer.json"),
                limits=PromptLimits(**manifest["prompt_limits"]),
                dataset=manifest["dataset"],
                metrics=manifest["metrics"],
                version=manifest["model_version"],
            )
        except (UnsupportedBackbone, SafetensorError, ValueError, TypeError, KeyError, OSError) as error:
            raise BundleError(
                f"the bundle {folder} does not fit this version of the program: {error}; retrain it"
            ) from error

    def _write_parts(self, folder: Path) -> None:
        self.model.save(folder)
        self.text.save(folder / "tokenizer.json")
        (folder / "calibration.json").write_text(self.calibration.to_json())
        arrays = {name: np.ascontiguousarray(getattr(self.graph, name)) for name in GRAPH_ARRAYS}
        save_file(arrays, str(folder / "graph.safetensors"))
        (folder / "items.json").write_text(json.dumps(list(self.graph.item_ids), ensure_ascii=True))

    def _write_manifest(self, folder: Path) -> str:
        files = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
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
