"""The pictures of `benchmarks.overload`: latency and quality against load, and a burst over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from loadgen.open_loop import Answer

Levels = Sequence[Mapping[str, Any]]


def draw(adaptive: Levels, fixed: Levels, burst: Sequence[Answer], base: float, out: Path) -> None:
    """Write both plots beside the figures."""
    out.parent.mkdir(parents=True, exist_ok=True)
    _draw_levels(adaptive, fixed, out.with_suffix(".levels.png"))
    _draw_burst(burst, base, out.with_suffix(".burst.png"))


def _draw_levels(adaptive: Levels, fixed: Levels, path: Path) -> None:
    figure, (latency, quality) = plt.subplots(1, 2, figsize=(11, 4))
    for name, levels, style in (("adaptive", adaptive, "-o"), ("fixed at base", fixed, "--s")):
        loads = [level["load"] for level in levels]
        for percentile in ("p50_ms", "p99_ms"):
            label = f"{name}, {percentile.removesuffix('_ms')}"
            latency.plot(loads, [level[percentile] for level in levels], style, label=label)
        quality.plot(loads, [level["auc"] for level in levels], style, label=name)
    latency.set(xscale="log", yscale="log", xlabel="load / full-depth capacity", ylabel="latency, ms")
    quality.set(xscale="log", xlabel="load / full-depth capacity", ylabel="AUC")
    for axes in (latency, quality):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_burst(burst: Sequence[Answer], base: float, path: Path) -> None:
    records = [(answer, answer.scores) for answer in burst if answer.scores is not None]
    times = [answer.arrival.due_s for answer, _ in records]
    figure, (threshold, queue, latency) = plt.subplots(3, 1, figsize=(11, 8), sharex=True)
    threshold.plot(times, [scores.exit_threshold for _, scores in records], ".", markersize=2)
    threshold.axhline(base, linestyle=":", label="base")
    threshold.set(ylabel="exit threshold")
    threshold.legend()
    queue.plot(times, [scores.step_times.queue_ms for _, scores in records], ".", markersize=2)
    queue.set(ylabel="time in the queue, ms")
    latency.plot(times, [answer.latency_ms for answer, _ in records], ".", markersize=2)
    latency.set(xlabel="seconds", ylabel="latency, ms")
    for axes in (threshold, queue, latency):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
