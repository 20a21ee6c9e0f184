"""The table of `benchmarks.startup`."""

from __future__ import annotations

from typing import Final

from benchmarks.markdown import Figures, table

WORKER_READY_S: Final = {"toy": 10, "weights": 20}
IDLE_MB: Final = 500
TIMES_WEIGHTS: Final = 1.2


def startup(toy: Figures, weights: Figures) -> str:
    """A row for every figure, a column for the worker of each model and for the updater."""
    rows = [
        (
            "ready after",
            _seconds(toy["worker"], WORKER_READY_S["toy"]),
            _seconds(weights["worker"], WORKER_READY_S["weights"]),
            _seconds(toy["updater"]),
        ),
        ("processor time until then", *(f"{told['ready_cpu_s']:.1f} s" for told in _programs(toy, weights))),
        (
            "resident when idle",
            f"{toy['worker']['resident_mb']:.0f} MB (≤ {IDLE_MB})",
            *(f"{told['resident_mb']:.0f} MB" for told in _programs(toy, weights)[1:]),
        ),
        (
            "of these, shared with no other process",
            *(f"{told['unique_mb']:.0f} MB" for told in _programs(toy, weights)),
        ),
        ("most during the start", *(f"{told['highest_mb']:.0f} MB" for told in _programs(toy, weights))),
        ("the model's weights", f"{toy['weights_mb']:.1f} MB", f"{weights['weights_mb']:.0f} MB"),
        (
            "the model in memory ÷ its weights",
            "",
            f"{weights['times_weights']:.2f} × (≤ {TIMES_WEIGHTS})",
        ),
        *_former(toy, weights),
    ]
    return table(("", *_names(toy, weights), "updater"), rows)


def startup_stages(toy: Figures, weights: Figures) -> str:
    """A row for every stage of a worker's start."""
    stages = toy["worker"]["stages"]
    rows = [(name, *(f"{figures['worker']['stages'][name]:.2f} s" for figures in (toy, weights))) for name in stages]
    return table(("stage", *_names(toy, weights)), rows)


def _names(toy: Figures, weights: Figures) -> tuple[str, str]:
    return (
        f"worker, demo's model ({toy['precision']})",
        f"worker, SmolLM2, {weights['layers']} layers ({weights['precision']})",
    )


def _programs(toy: Figures, weights: Figures) -> tuple[Figures, Figures, Figures]:
    return toy["worker"], weights["worker"], toy["updater"]


def _seconds(told: Figures, goal: int | None = None) -> str:
    return f"{told['ready_s']:.1f} s" + (f" (≤ {goal})" if goal else "")


def _former(toy: Figures, weights: Figures) -> list[tuple[str, ...]]:
    """What an earlier version took in the same run, where there was one."""
    programs = _programs(toy, weights)
    if not all("before" in told for told in programs):
        return []
    return [
        ("ready after, version before", *(f"{told['before']['ready_s']:.1f} s" for told in programs)),
        ("resident when idle, version before", *(f"{told['before']['resident_mb']:.0f} MB" for told in programs)),
    ]
