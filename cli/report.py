"""Shows a report in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from rich.console import Console
from rich.table import Table

from cli.replay_table import exit_shares
from loadgen.report import Report
from loadgen.worker_metrics import WorkerFigures

LAYER: Final = "auc_layer_"
"""What the bundle's figures of an exit head begin with."""


def show_report(
    report: Report, figures: WorkerFigures | None, console: Console, trained: Mapping[str, float] | None = None
) -> None:
    """A table with one line per question: quality, latency, exits, …

    Args:
        report: the figures of the replay.
        figures: the worker's own.
        console: where to show it.
        trained: the bundle's figures of the last tenth, from the end of its training.
    """
    table = Table(show_header=False, title="Report", title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for question, answer in _rows(report):
        table.add_row(question, answer)
    if figures is not None:
        share = figures.token_layer_share
        table.add_row("token-layers", f"{share:.1%} of full depth executed: exits saved {1 - share:.1%}")
        fresh = f"p50 {figures.freshness_p50_ms:.0f} ms, p99 {figures.freshness_p99_ms:.0f} ms"
        table.add_row("freshness", f"event to servable: {fresh}")
    if trained is not None and "auc_full_depth" in trained:
        table.add_row("heads", heads_words(trained))
    console.print(table)


def heads_words(trained: Mapping[str, float]) -> str:
    """The AUC of each head on the last tenth, between the running means and, of an invented world, the limit."""
    layers = sorted(int(name.removeprefix(LAYER)) for name in trained if name.startswith(LAYER))
    heads = [f"layer {layer} {trained[f'{LAYER}{layer}']:.4f}" for layer in layers]
    heads.append(f"full depth {trained['auc_full_depth']:.4f}")
    told = f"AUC on the last tenth: {', '.join(heads)}"
    means, limit = trained.get("auc_running_means"), trained.get("auc_limit")
    if means is None or limit is None or limit <= means:
        return told
    way = max(0.0, (trained["auc_full_depth"] - means) / (limit - means))
    return f"{told}; limit of this invented world {limit:.4f}, {way:.0%} of the way from running means"


def _rows(report: Report) -> Iterator[tuple[str, str]]:
    counts = f"{report.answered} answered, {report.lost} lost, {report.duplicated} duplicated"
    yield "requests", f"{report.requests} sent, {counts}"
    beside = f"running means on the same candidates: {report.baseline_auc:.4f}"
    yield "quality", f"AUC {report.auc:.4f} ({beside}), log loss {report.log_loss:.4f}, {report.candidates} candidates"
    latency = ", ".join(f"{name} {value:.0f} ms" for name, value in report.latency_ms.items())
    yield "latency", f"{latency}; within budget {report.within_budget_share:.1%}, late {report.late}"
    exits = Counter({int(layer): count for layer, count in report.exit_layers.items()})
    yield "exits by layer", exit_shares(exits)
    yield "made by", ", ".join(f"{made_by} {count}" for made_by, count in sorted(report.made_by.items()))
