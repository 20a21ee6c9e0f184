"""The model bundle: a folder with everything that serving needs. Every file is hashed; nothing is pickled.

    bundle.json            format and model version, sizes and hashes of the files, prompt limits, data set, metrics
    backbone/              the decoder, as transformers reads it (config.json, model.safetensors)
    exits.json             exit layers and widths
    exits.safetensors      soft-token projections and heads
    tokenizer.json
    graph.safetensors      base embeddings of items, layer weights, the map from words to embeddings
    items.json             the items' ids, in the order of their base embeddings
    calibration.json
    prompt.json            the words around the evidence in a prompt (models.prompt_template)
    golden.json            requests with the scores that the bundle gave when it was saved (models.golden)

The model version is a hash of the hashes: bundles of the same version give the same scores.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch
from safetensors.numpy import save_file

from models.bundle_files import GRAPH_ARRAYS, load_graph_and_text
from models.bundle_manifest import (
    FORMAT_VERSION,
    FORMAT_WITHOUT_SUMS,
    GOLDEN,
    MANIFEST,
    PROMPT,
    file_entry,
    model_version,
    read_manifest,
    reading,
    verified_manifest,
)
from models.calibration import ExitCalibration
from models.embedding_space import embedding_space
from models.exit_model import ExitModel
from models.golden import GoldenRequest, read_golden, write_golden
from models.graph_base import GraphBase
from models.prompt import PromptBuilder, PromptLimits
from models.prompt_template import TERSE, PromptTemplate, read_template, write_template
from models.text import Text
from runtime.clock import Clock, SystemClock
from runtime.errors import BundleError

__all__ = ["MANIFEST", "TRAINING", "Bundle", "read_manifest", "require_bundle_folder"]

TRAINING: Final = ".training"
"""Folder inside a bundle's where a training keeps its state; the finished bundle replaces it."""


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
        golden: requests with this bundle's scores (`models.golden_check`); none in bundles of an earlier release.
        template: the words of a prompt.
    """

    model: ExitModel
    calibration: ExitCalibration
    graph: GraphBase
    text: Text
    limits: PromptLimits
    dataset: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    version: str = ""
    golden: tuple[GoldenRequest, ...] = ()
    template: PromptTemplate = TERSE

    @cached_property
    def space(self) -> str:
        """Identity of the space of its embeddings (`models.embedding_space`)."""
        return embedding_space(self.graph, self.text)

    def prompt_builder(self) -> PromptBuilder:
        """The prompt builder that this model was trained with."""
        return PromptBuilder(self.text, self.graph.dim, self.limits, self.model.config.statistics, self.template)

    def save(self, folder: Path, clock: Clock | None = None) -> Bundle:
        """Write the folder. An existing bundle is replaced only once the new one is complete.

        Args:
            folder: the bundle.
            clock: tells the time that the manifest notes.

        Returns:
            This bundle with its version.

        Raises:
            BundleError: the folder cannot be written, or holds files that are not a bundle.
        """
        require_bundle_folder(folder)
        unfinished = folder.with_name(folder.name + ".unfinished")
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            self._write_parts(unfinished)
            version = self._write_manifest(unfinished, (clock or SystemClock()).wall_ms())
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
        except OSError as error:
            raise BundleError(f"cannot write the bundle {folder}: {error}") from error
        return replace(self, version=version)

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> Bundle:
        """Read what `save` wrote, after checking the hash of every file. A bundle is not trusted: it can decide scores,
        but neither run code nor make this process read elsewhere or allocate more than its files hold.

        Args:
            folder: the bundle.
            dtype: number format of the weights in memory.

        Raises:
            BundleError: the bundle is missing, corrupt, or of a format that this version cannot read.
        """
        manifest = verified_manifest(folder)
        graph, text = load_graph_and_text(folder)
        with reading(folder, "calibration.json"):
            calibration = ExitCalibration.from_json((folder / "calibration.json").read_text())
        with reading(folder, "the model (backbone, exits.json, exits.safetensors)"):
            model = ExitModel.load(folder, dtype)
        with reading(folder, PROMPT):
            template = read_template(folder / PROMPT) if PROMPT in manifest.files else TERSE
        with reading(folder, MANIFEST):
            bundle = cls(
                model=model,
                calibration=calibration,
                graph=graph,
                text=text,
                limits=PromptLimits(**manifest.prompt_limits),
                dataset=manifest.dataset,
                metrics=manifest.metrics,
                version=manifest.model_version,
                golden=read_golden(folder) if GOLDEN in manifest.files else (),
                template=template,
            )
        with reading(folder, "how its parts fit each other"):
            bundle.check_parts()
        return bundle

    def check_parts(self) -> None:
        """Check that the parts are of one model.

        Raises:
            ValueError: numbers of heads, widths of embeddings or vocabularies differ.
        """
        config, words = self.model.config, self.model.backbone.config.vocab_size
        heads, width = len(config.exit_layers), self.prompt_builder().soft_width
        if self.calibration.heads != heads:
            raise ValueError(f"the calibration is for {self.calibration.heads} heads, the model has {heads}")
        if (config.embedding_dim, config.soft_width) != (self.graph.dim, width):
            raise ValueError(
                f"the model is for embeddings of {config.embedding_dim} in rows of {config.soft_width}, "
                f"the graph has {self.graph.dim}, in rows of {width}"
            )
        if self.text.largest_token_id >= words:
            raise ValueError(f"token {self.text.largest_token_id} is none of the model's {words}")

    def _write_parts(self, folder: Path) -> None:
        self.model.save(folder)
        self.text.save(folder / "tokenizer.json")
        (folder / "calibration.json").write_text(self.calibration.to_json())
        arrays = {name: np.ascontiguousarray(getattr(self.graph, name)) for name in GRAPH_ARRAYS}
        save_file(arrays, str(folder / "graph.safetensors"))
        (folder / "items.json").write_text(json.dumps(list(self.graph.item_ids), ensure_ascii=True))
        write_template(self.template, folder / PROMPT)
        if self.golden:
            write_golden(folder, self.golden)

    def _write_manifest(self, folder: Path, now_ms: int) -> str:
        files = {
            path.relative_to(folder).as_posix(): file_entry(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        limits = asdict(self.limits)
        version = model_version(files, limits)
        manifest = {
            "format_version": FORMAT_VERSION if self.template.sum_lines else FORMAT_WITHOUT_SUMS,
            "model_version": version,
            "created_time_ms": now_ms,
            "dataset": self.dataset,
            # Absent rather than NaN, which JSON does not have: a figure that could not be computed.
            "metrics": {name: value for name, value in self.metrics.items() if math.isfinite(value)},
            "prompt_limits": limits,
            "embedding_dim": self.graph.dim,
            "exit_layers": list(self.model.config.exit_layers),
            "files": msgspec.to_builtins(files),
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        return version


def require_bundle_folder(folder: Path) -> None:
    """Check that a bundle may be written there.

    Raises:
        BundleError: the folder holds files that are not a bundle.
    """
    if not folder.exists() or (folder / MANIFEST).exists():
        return
    if any(entry.name != TRAINING for entry in folder.iterdir()):
        raise BundleError(f"{folder} holds files that are not a bundle; choose an empty or new folder")
