"""The plots of `benchmarks.graph`: error against throughput, and cost per event against the size of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

Rows = Sequence[Mapping[str, Any]]


def draw(by_epsilon: Rows, by_size: Rows, out: Path) -> None:
    """Write both plots beside the figures."""
    out.parent.mkdir(parents=True, exist_ok=True)
    _draw_errors(by_epsilon, out.with_suffix(".error.png"))
    _draw_sizes(by_size, out.with_suffix(".size.png"))


def _draw_errors(rows: Rows, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    speed = [row["events_per_second"] for row in rows]
    for name, values in (
        ("largest relative error", [row["max_relative_error"] for row in rows]),
        ("mean relative error", [row["mean_relative_error"] for row in rows]),
        ("1 - smallest cosine", [1.0 - row["min_cosine"] for row in rows]),
    ):
        axes.plot(speed, values, "-o", label=name)
    for row in rows:
        axes.annotate(f"ε = {row['epsilon']:g}", (row["events_per_second"], row["max_relative_error"]), fontsize=8)
    axes.axhline(1e-3, linestyle=":", color="grey", label="cosine 0.999")
    axes.set(xlabel="events per second on one core", ylabel="error against exact, all nodes", yscale="log")
    _save(figure, axes, path)


def _draw_sizes(rows: Rows, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    edges = [row["edges"] for row in rows]
    axes.plot(edges, [row["event_us"] for row in rows], "-o", label="one event")
    axes.plot(
        edges, [1e6 * row["recompute_seconds"] for row in rows], "--s", label="one recomputation (the faster library)"
    )
    axes.set(xscale="log", yscale="log", xlabel="edges in the graph", ylabel="microseconds")
    _save(figure, axes, path)


def _save(figure: Any, axes: Any, path: Path) -> None:  # noqa: ANN401 - matplotlib's
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
