"""The plots of `benchmarks.overload`: latency and quality against load, and a burst over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import pyplot as plt

from loadgen.open_loop import Answer

STYLES: Final = {
    "shipped": ("as shipped", "-o"),
    "shipped_fixed": ("fixed at the shipped threshold", "--o"),
    "deep": ("adaptive from full depth", "-s"),
    "deep_fixed": ("fixed at full depth", "--s"),
}


def draw(workers: Mapping[str, Mapping[str, Any]], burst: Sequence[Answer], base: float, out: Path) -> None:
    """Write both plots beside the figures."""
    out.parent.mkdir(parents=True, exist_ok=True)
    _draw_levels(workers, out.with_suffix(".levels.png"))
    _draw_burst(burst, base, out.with_suffix(".burst.png"))


def _draw_levels(workers: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    figure, (latency, quality) = plt.subplots(1, 2, figsize=(11, 4))
    for worker, (name, style) in STYLES.items():
        levels = workers[worker]["levels"]
        loads = [level["load"] for level in levels]
        latency.plot(loads, [level["p99_ms"] for level in levels], style, label=name)
        quality.plot(loads, [level["auc"] for level in levels], style, label=name)
    latency.set(xscale="log", yscale="log", xlabel="load / full-depth capacity", ylabel="p99 latency, ms")
    quality.set(xscale="log", xlabel="load / full-depth capacity", ylabel="AUC of the fixed set of pages")
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
    latency.set(xlabel="request due, seconds after the start", ylabel="latency, ms")
    for axes in (threshold, queue, latency):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
