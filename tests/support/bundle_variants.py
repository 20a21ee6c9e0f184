"""Bundles that differ from another one in a single way."""

from __future__ import annotations

from dataclasses import replace

from models.bundle import Bundle
from models.golden_check import with_golden


def with_other_scores(bundle: Bundle, shift: float = 1.0) -> Bundle:
    """The same embeddings, other scores: every head's logit is shifted."""
    calibration = replace(bundle.calibration, intercepts=bundle.calibration.intercepts + shift)
    return with_golden(replace(bundle, calibration=calibration), bundle.golden)


def with_other_embeddings(bundle: Bundle, scale: float = 2.0) -> Bundle:
    """Base embeddings of another space."""
    graph = replace(bundle.graph, item_embeddings=bundle.graph.item_embeddings * scale)
    return with_golden(replace(bundle, graph=graph), bundle.golden)


def with_wrong_golden_scores(bundle: Bundle) -> Bundle:
    """What it computes is not what it was saved with."""
    other = with_other_scores(bundle)
    return replace(other, golden=bundle.golden)
