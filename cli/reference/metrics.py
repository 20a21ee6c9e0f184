"""The reference of metrics, from the programs' own metric objects."""

from __future__ import annotations

from graph_updater.metrics import UpdaterMetrics
from runtime.observability.telemetry import Metrics
from worker.metrics import WorkerMetrics

_HEAD = """# Metrics

Each program serves its metrics on `/metrics` of its status port ([health](../operations.md#health)). Times are in
seconds. Which of them to watch, and when to worry: [operations](../operations.md#what-to-watch).

`exitstream reference` writes this page.
"""

_LAST = """
## Both

`process_*` and `python_*` tell CPU seconds, memory, open files and garbage collections, as Prometheus' client library
names them.
"""


def page() -> str:
    """The page in Markdown."""
    programs = {"Worker": WorkerMetrics(), "Updater": UpdaterMetrics()}
    return _HEAD + "".join(_section(program, metrics) for program, metrics in programs.items()) + _LAST


def _section(program: str, metrics: Metrics) -> str:
    rows = "".join(
        f"| `{family.name}` | {', '.join(f'`{label}`' for label in family.labels)} | {family.kind} | "
        f"{family.description} |\n"
        for family in sorted(metrics.families)
    )
    return f"\n## {program}\n\n| metric | labels | kind | what |\n| --- | --- | --- | --- |\n{rows}"
