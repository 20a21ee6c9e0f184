"""The plot of `benchmarks.engine`: quality against time per candidate, for all thresholds and both criteria."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from models.calibration import Criterion


@dataclass(frozen=True, slots=True)
class FrontierRun:
    """Time and AUC at one exit threshold."""

    criterion: Criterion
    threshold: float
    microseconds_per_candidate: float
    auc: float

    def figures(self) -> dict[str, Any]:
        """For the JSON file."""
        return asdict(self)


def draw(frontier: Sequence[FrontierRun], figures: Mapping[str, Any], out: Path) -> None:
    """Write the plot beside the figures."""
    out.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for criterion, label in (("calibrated", "calibrated confidence"), ("ratio", "ratio and trend (the paper's)")):
        points = [point for point in frontier if point.criterion == criterion]
        times = [point.microseconds_per_candidate for point in points]
        axes.plot(times, [point.auc for point in points], "-o", label=label)
    base = 1e6 / figures["exit_candidates_per_second"]
    axes.plot([base], [figures["auc_exit"]], "k*", markersize=12, label="base threshold")
    axes.axhline(figures["auc_full_depth"], color="grey", linewidth=0.8, label="full depth")
    axes.set(xlabel="time per candidate, µs", ylabel="AUC")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(out.with_suffix(".png"), dpi=120)
    plt.close(figure)
