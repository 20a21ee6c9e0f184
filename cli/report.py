"""Shows a report in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from cli.replay_table import exit_shares
from loadgen.report import Report
from loadgen.worker_metrics import WorkerFigures


def show_report(report: Report, figures: WorkerFigures | None, console: Console) -> None:
    """A table with one line per question: quality, latency, exits, …"""
    table = Table(show_header=False, title="Report", title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for question, answer in _rows(report):
        table.add_row(question, answer)
    if figures is not None:
        table.add_row("token-layers", f"{figures.token_layer_share:.1%} of full depth executed")
        fresh = f"p50 {figures.freshness_p50_ms:.0f} ms, p99 {figures.freshness_p99_ms:.0f} ms"
        table.add_row("freshness", f"event to servable: {fresh}")
    console.print(table)


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
