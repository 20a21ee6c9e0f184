"""The facts about one bundle, as `exitstream bundle inspect` tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.bundle import Bundle, read_manifest
from models.bundle_manifest import Manifest
from models.calibration import FrontierPoint
from models.golden_check import check_golden
from runtime.errors import BundleError


@dataclass(frozen=True, slots=True)
class Head:
    """An exit head.

    Attributes:
        layer: after which it stands.
        layer_share: of all layers, what a candidate that leaves here has computed.
        auc: of this head alone on the last tenth of the training data; None where the bundle does not tell.
    """

    layer: int
    layer_share: float
    auc: float | None


@dataclass(frozen=True, slots=True)
class Backbone:
    """The decoder under the heads."""

    family: str
    layers: int
    hidden: int
    vocabulary: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Graph:
    """The graph part: what the updater uses of a bundle."""

    items: int
    embedding_dim: int
    propagation_layers: int


@dataclass(frozen=True, slots=True)
class Exits:
    """What decides exits.

    Attributes:
        criterion: what `confidence` computes.
        tolerance: largest difference, in calibrated log-odds, between answers that count as the same.
        base_threshold: the exit threshold without load.
        floor_threshold: the lowest that is ever used.
        frontier: compute and quality loss by threshold.
    """

    criterion: str
    tolerance: float
    base_threshold: float
    floor_threshold: float
    frontier: tuple[FrontierPoint, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that is told of a bundle whose hashes are right.

    Attributes:
        folder: where it lies on this machine.
        golden_requests: how many it has.
        golden_trouble: what is wrong with their scores; empty if nothing.
    """

    folder: str
    version: str
    format_version: int
    created_time_ms: int
    dataset: str
    bytes: int
    files: Mapping[str, int]
    backbone: Backbone
    heads: tuple[Head, ...]
    graph: Graph
    exits: Exits
    prompt_template: str
    prompt_limits: Mapping[str, int]
    metrics: Mapping[str, float]
    golden_requests: int
    golden_trouble: str


def inspected(folder: Path) -> Inspection:
    """Load a bundle, which checks its hashes, compute its golden scores, and gather the facts.

    Raises:
        BundleError: it does not load.
    """
    manifest, bundle = read_manifest(folder), Bundle.load(folder)
    calibration, decoder = bundle.calibration, bundle.model.backbone.config
    return Inspection(
        folder=str(folder),
        version=bundle.version,
        format_version=manifest.format_version,
        created_time_ms=manifest.created_time_ms,
        dataset=bundle.dataset,
        bytes=manifest.bytes,
        files={name: entry.bytes for name, entry in sorted(manifest.files.items())},
        backbone=Backbone(
            family=str(decoder.model_type),
            layers=int(decoder.num_hidden_layers),
            hidden=int(decoder.hidden_size),
            vocabulary=int(decoder.vocab_size),
            parameters=sum(part.numel() for part in bundle.model.parameters()),
        ),
        heads=_heads(bundle, manifest),
        graph=Graph(len(bundle.graph.item_ids), bundle.graph.dim, bundle.graph.layers),
        exits=Exits(
            calibration.criterion,
            calibration.tolerance,
            calibration.base_threshold,
            calibration.floor_threshold,
            calibration.frontier,
        ),
        prompt_template=bundle.template.name,
        prompt_limits=manifest.prompt_limits,
        metrics=manifest.metrics,
        golden_requests=len(bundle.golden),
        golden_trouble=_golden_trouble(bundle),
    )


def _heads(bundle: Bundle, manifest: Manifest) -> tuple[Head, ...]:
    layers = bundle.model.config.exit_layers
    auc = {layer: manifest.metrics.get(f"auc_layer_{layer}") for layer in layers}
    auc[layers[-1]] = manifest.metrics.get("auc_full_depth")
    return tuple(Head(layer, layer / layers[-1], auc[layer]) for layer in layers)


def _golden_trouble(bundle: Bundle) -> str:
    try:
        check_golden(bundle)
    except BundleError as error:
        return str(error)
    return ""
