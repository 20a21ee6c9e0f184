"""What the engine has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class EngineCounters:
    """Running totals since the start, for metrics and benchmarks."""

    steps: int = 0
    requests: int = 0
    faults: int = 0
    """Contained errors: each cost some candidates their heads, or the graph's rate."""
    token_layers_run: int = 0
    token_layers_full: int = 0
    step_s: float = 0.0
    """Seconds inside the engine: batching, model, exits. Preparation and graph scores are not part of it."""
    model_s: float = 0.0
    """Of these, seconds inside embedding, layers and heads (warm-up and traces count here too)."""
    prefix_hits: int = 0
    prefix_partial_hits: int = 0
    prefix_misses: int = 0
    prefix_bytes: int = 0
    """Held by the prefix cache now."""
