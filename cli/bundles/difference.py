"""The facts about two bundles, as `exitstream bundle diff` tells them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final

import msgspec
import numpy as np

from models.bundle import Bundle
from models.bundle_manifest import Manifest
from models.golden_check import golden_scores

_CHEAP_LOSS: Final = 0.01
"""Where frontiers are compared: log loss above full depth, as a share of it."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is not the same in both bundles, as text."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """How far the second bundle's scores of the first one's golden requests are from the first one's.

    Attributes:
        scored_by: the graph score, or a head.
        mean: difference in probability, over candidates.
        largest: the same.
    """

    scored_by: str
    mean: float
    largest: float


@dataclass(frozen=True, slots=True)
class Difference:
    """What is different between two bundles.

    Attributes:
        changes: settings, sizes, calibration, figures.
        same_graph_part: whether embeddings computed with one may be used with the other.
        items_added: items with a trained embedding in the second alone, sorted.
        items_gone: in the first alone.
        golden: per way to score that both have; empty if the first has no golden requests.
    """

    before: str
    after: str
    changes: tuple[Change, ...]
    same_graph_part: bool
    items_added: tuple[str, ...]
    items_gone: tuple[str, ...]
    golden: tuple[ScoreChange, ...]


def difference(before: tuple[Bundle, Manifest], after: tuple[Bundle, Manifest]) -> Difference:
    """Compare two loaded bundles."""
    (first, old), (second, new) = before, after
    known, wanted = set(first.graph.item_ids), set(second.graph.item_ids)
    facts, now = dict(_facts(first, old)), dict(_facts(second, new))
    return Difference(
        before=first.version,
        after=second.version,
        changes=tuple(
            Change(what, facts.get(what, "–"), now.get(what, "–"))
            for what in dict.fromkeys((*facts, *now))
            if facts.get(what) != now.get(what)
        ),
        same_graph_part=first.space == second.space,
        items_added=tuple(sorted(wanted - known)),
        items_gone=tuple(sorted(known - wanted)),
        golden=tuple(_golden(first, second)),
    )


def _facts(bundle: Bundle, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Names and values of everything that is compared as text."""
    decoder, calibration = bundle.model.backbone.config, bundle.calibration
    yield "training data", bundle.dataset
    yield "backbone", f"{decoder.model_type}, {decoder.num_hidden_layers} layers of {decoder.hidden_size}"
    yield "weights", manifest.files["backbone/model.safetensors"].sha256[:12]
    yield "heads after layers", ", ".join(map(str, bundle.model.config.exit_layers))
    yield "embedding width", str(bundle.graph.dim)
    yield "propagation layers", str(bundle.graph.layers)
    for name, limit in sorted(manifest.prompt_limits.items()):
        yield f"prompt: {name}", str(limit)
    for name, text in msgspec.structs.asdict(bundle.template).items():
        yield f"prompt words: {name}", str(text)
    for field in fields(calibration):
        value = getattr(calibration, field.name)
        if isinstance(value, float):
            yield f"calibration: {field.name}", f"{value:.4g}"
        elif isinstance(value, str):
            yield f"calibration: {field.name}", value
    for head, layer in enumerate(bundle.model.config.exit_layers):
        slope, intercept = calibration.slopes[head], calibration.intercepts[head]
        yield f"calibration after layer {layer}", f"slope {slope:.4f}, intercept {intercept:.4f}"
    shares = [point.token_layer_share for point in calibration.frontier if point.metric_loss <= _CHEAP_LOSS]
    if shares:
        yield f"token-layers computed at {_CHEAP_LOSS:.0%} more log loss", f"{min(shares):.1%} of full depth"
    for name, figure in manifest.metrics.items():
        yield name.replace("_", " "), f"{figure:.4f}"
    yield "size", f"{manifest.bytes / 1e6:.1f} MB"


def _golden(first: Bundle, second: Bundle) -> Iterator[ScoreChange]:
    """The first one's golden requests are scored by both here, so that only the bundles differ."""
    if not first.golden:
        return
    old, new = (golden_scores(bundle, first.golden) for bundle in (first, second))
    names = [_columns(bundle) for bundle in (first, second)]
    for name in names[0]:
        if name in names[1]:
            gaps = np.abs(old[:, names[0].index(name)] - new[:, names[1].index(name)])
            yield ScoreChange(name, float(gaps.mean()), float(gaps.max()))


def _columns(bundle: Bundle) -> list[str]:
    """Names of the columns of golden scores; the last head is the same thing in every bundle, at whatever depth."""
    early = (f"head after layer {layer}" for layer in bundle.model.config.exit_layers[:-1])
    return ["graph score", *early, "full depth"]
