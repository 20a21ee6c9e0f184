"""Writes the dashboards: `python deploy/grafana/generate.py`. What a panel shows is one line here; the rest is layout.

A test holds that the written files are current and that every metric asked for is one that the programs expose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "dashboards"
_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24
_HEIGHT: Final = 7
_LOOKUPS: Final = "exitstream_worker_prefix_cache_lookups_total"
_SELECTOR: Final = 'job=~"$job"'


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title: what it answers.
        unit: Grafana's name of the unit.
        queries: PromQL by legend; `{sel}` stands for the chosen jobs.
        help: what to think of it.
        red_above: from here on it is drawn red.
    """

    title: str
    unit: str
    queries: Mapping[str, str]
    help: str = ""
    red_above: float | None = None


@dataclass(frozen=True)
class Row:
    """Charts side by side under one heading."""

    title: str
    panels: Sequence[Panel] = field(default_factory=tuple)


def _quantile(share: float, metric: str, by: str = "") -> str:
    more = f", {by}" if by else ""
    return f"histogram_quantile({share}, sum by (le{more}) (rate({metric}_bucket{{sel}}[$__rate_interval])))"


def _rate(metric: str, by: str = "") -> str:
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{sel}}[$__rate_interval]))"


ON_CALL: Final = (
    Row(
        "Is the promise kept?",
        (
            Panel("Requests answered", "reqps", {"{{status}}": _rate("exitstream_worker_requests_total", "status")}),
            Panel(
                "Share answered after the deadline",
                "percentunit",
                {"{{job}}": "exitstream:worker_late_share:rate5m{sel}"},
                "What each request was promised: an answer within its budget.",
                red_above=0.01,
            ),
            Panel(
                "Latency as a share of the budget",
                "percentunit",
                {
                    "p50": _quantile(0.5, "exitstream_worker_budget_share"),
                    "p99": _quantile(0.99, "exitstream_worker_budget_share"),
                },
                red_above=1.0,
            ),
            Panel(
                "Latency",
                "s",
                {
                    "p50": _quantile(0.5, "exitstream_worker_latency_seconds"),
                    "p99": _quantile(0.99, "exitstream_worker_latency_seconds"),
                },
            ),
        ),
    ),
    Row(
        "Is there too much to do?",
        (
            Panel(
                "Requests not read yet",
                "short",
                {"{{partition}}": "sum by (partition) (exitstream_worker_consumer_lag_records{sel})"},
            ),
            Panel("Requests in flight", "short", {"{{instance}}": "exitstream_worker_in_flight_requests{sel}"}),
            Panel(
                "Exit threshold in force",
                "percentunit",
                {"{{instance}}": "exitstream_worker_exit_threshold{sel}"},
                "Below its base the workers think less per candidate to stay in time: add workers if it stays there.",
            ),
            Panel(
                "Candidates left to the graph", "percentunit", {"{{job}}": "exitstream:worker_graph_share:rate5m{sel}"}
            ),
        ),
    ),
    Row(
        "Is what is known fresh?",
        (
            Panel(
                "From an event until it can be served",
                "s",
                {
                    "updater p99": _quantile(0.99, "exitstream_updater_freshness_seconds"),
                    "worker p99": _quantile(0.99, "exitstream_worker_freshness_seconds"),
                },
            ),
            Panel(
                "Interactions not read yet",
                "short",
                {"{{topic}}": "sum by (topic) (exitstream_updater_consumer_lag_records{sel})"},
            ),
            Panel(
                "Leading updaters",
                "short",
                {"{{job}}": "sum by (job) (exitstream_updater_leading{sel})"},
                "Exactly one of a job.",
            ),
            Panel("Batches awaiting publication", "short", {"{{instance}}": "exitstream_updater_pending_batches{sel}"}),
        ),
    ),
    Row(
        "Is something broken?",
        (
            Panel(
                "Dead letters",
                "ops",
                {
                    "worker {{topic}}": _rate("exitstream_worker_dead_letters_total", "topic"),
                    "updater {{topic}}": _rate("exitstream_updater_dead_letters_total", "topic"),
                },
            ),
            Panel(
                "Gone wrong",
                "ops",
                {
                    "states refused": _rate("exitstream_worker_refused_states_total"),
                    "internal errors": _rate("exitstream_worker_internal_errors_total"),
                    "{{topic}}: expired unread": _rate("exitstream_updater_gap_records_total", "topic"),
                },
            ),
            Panel(
                "Event loop lag p99",
                "s",
                {
                    "worker": _quantile(0.99, "exitstream_worker_event_loop_lag_seconds"),
                    "updater": _quantile(0.99, "exitstream_updater_event_loop_lag_seconds"),
                },
                red_above=0.1,
            ),
            Panel("Programs that answer", "short", {"{{job}}": "sum by (job) (up{sel})"}),
        ),
    ),
    Row(
        "Processes",
        (
            Panel("CPU", "percentunit", {"{{instance}}": "rate(process_cpu_seconds_total{sel}[$__rate_interval])"}),
            Panel("Memory", "bytes", {"{{instance}}": "process_resident_memory_bytes{sel}"}),
            Panel("Open descriptors", "short", {"{{instance}}": "process_open_fds{sel}"}),
            Panel(
                "Snapshots",
                "ops",
                {
                    "written": _rate("exitstream_updater_snapshots_total"),
                    "failed": _rate("exitstream_updater_snapshot_failures_total"),
                },
            ),
        ),
    ),
)
MODEL: Final = (
    Row(
        "Which model serves",
        (
            Panel(
                "Workers by model",
                "short",
                {
                    "{{job}} {{model_version}}": (
                        "count by (job, model_version) (exitstream_worker_serving_model{sel} == 1)"
                    )
                },
                "A new version takes the place of the old one within minutes; a shadow stays at its own.",
            ),
            Panel(
                "Model of each worker",
                "short",
                {"{{instance}} {{model_version}}": "exitstream_worker_serving_model{sel}"},
            ),
            Panel(
                "Newer bundles refused within 90 minutes",
                "short",
                {"{{instance}}": "increase(exitstream_worker_refused_bundles_total{sel}[90m])"},
                "Above 0: the log of that worker says why; it goes on with the model that it has.",
            ),
        ),
    ),
    Row(
        "How good scores are",
        (
            Panel(
                "Live AUC",
                "short",
                {
                    "{{job}} {{model_version}}": "exitstream:worker_live_auc{sel}",
                    "{{instance}} {{model_version}}": "exitstream_worker_live_auc{sel}",
                },
                "Of the latest scores with an outcome; only what was shown has one. Compare a job with itself over "
                "time, and with its shadow.",
            ),
            Panel(
                "Predicted over observed",
                "short",
                {
                    "{{job}} {{model_version}}": "exitstream:worker_live_calibration_ratio{sel}",
                    "{{instance}} {{model_version}}": "exitstream_worker_live_calibration_ratio{sel}",
                },
                "1: scores mean what they say. Above 1 they promise too much, below 1 too little.",
            ),
            Panel("Live log loss", "short", {"{{instance}} {{model_version}}": "exitstream_worker_live_log_loss{sel}"}),
            Panel(
                "Scores by whether an outcome followed",
                "ops",
                {"{{outcome}}": _rate("exitstream_worker_live_scores_total", "outcome")},
                "settled: with an interaction in time; expired: without; skipped: not followed, for want of room.",
            ),
        ),
    ),
    Row(
        "How scores are made",
        (
            Panel(
                "Candidates by what made their score",
                "percentunit",
                {
                    "{{made_by}}": (
                        f"{_rate('exitstream_worker_candidates_total', 'made_by')} "
                        f"/ ignoring (made_by) group_left {_rate('exitstream_worker_candidates_total')}"
                    )
                },
            ),
            Panel(
                "Candidates by exit layer",
                "percentunit",
                {
                    "layer {{exit_layer}}": (
                        f"{_rate('exitstream_worker_candidates_total', 'exit_layer')} "
                        f"/ ignoring (exit_layer) group_left {_rate('exitstream_worker_candidates_total')}"
                    )
                },
            ),
            Panel(
                "Share of full depth executed", "percentunit", {"{{job}}": "exitstream:worker_depth_share:rate5m{sel}"}
            ),
            Panel("Exit threshold in force", "percentunit", {"{{instance}}": "exitstream_worker_exit_threshold{sel}"}),
        ),
    ),
    Row(
        "Where the time goes",
        (
            Panel("Step, p50", "s", {"{{step}}": _quantile(0.5, "exitstream_worker_step_seconds", "step")}),
            Panel("Step, p99", "s", {"{{step}}": _quantile(0.99, "exitstream_worker_step_seconds", "step")}),
            Panel("Engine", "percentunit", {"{{part}}": _rate("exitstream_worker_engine_seconds_total", "part")}),
            Panel(
                "Prefix cache hits",
                "percentunit",
                {"hits": (f'sum(rate({_LOOKUPS}{{outcome="hit", {{inner}}}}[$__rate_interval])) / {_rate(_LOOKUPS)}')},
            ),
        ),
    ),
    Row(
        "What it knows",
        (
            Panel(
                "Age of the newest event known", "s", {"p50": _quantile(0.5, "exitstream_worker_embedding_age_seconds")}
            ),
            Panel("True neighbours found", "percentunit", {"{{kind}}": "exitstream_worker_search_recall{sel}"}),
            Panel(
                "Entries in the tables", "short", {"{{kind}}": "max by (kind) (exitstream_worker_table_entries{sel})"}
            ),
            Panel(
                "Updater's state",
                "bytes",
                {"{{instance}}": 'exitstream_updater_state_bytes{per="total", {inner}}'},
            ),
        ),
    ),
)
DASHBOARDS: Final = {
    "exitstream-on-call": ("exitstream: on call", ON_CALL),
    "exitstream-model": ("exitstream: model", MODEL),
}


def dashboard(uid: str, title: str, rows: Sequence[Row]) -> dict[str, Any]:
    """A dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in rows:
        panels.append(_placed({"type": "row", "title": row.title, "collapsed": False, "panels": []}, 0, top, _WIDTH, 1))
        width = _WIDTH // len(row.panels)
        panels += [
            _placed(_chart(panel), place * width, top + 1, width, _HEIGHT) for place, panel in enumerate(row.panels)
        ]
        top += 1 + _HEIGHT
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    return {
        "uid": uid,
        "title": title,
        "tags": ["exitstream"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_datasource_variable(), _job_variable()]},
        "panels": panels,
    }


def _chart(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_above is not None:
        steps.append({"color": "red", "value": panel.red_above})
    drawn = {"thresholdsStyle": {"mode": "line" if panel.red_above is not None else "off"}, "fillOpacity": 8}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": _DATASOURCE,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": drawn,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _DATASOURCE,
                "legendFormat": legend,
                "expr": query.replace("{sel}", f"{{{_SELECTOR}}}").replace("{inner}", _SELECTOR),
            }
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _placed(panel: dict[str, Any], x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {**panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _datasource_variable() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _job_variable() -> dict[str, Any]:
    return {
        "name": "job",
        "label": "Job",
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": 'label_values({__name__=~"exitstream_.*"}, job)', "refId": "job"},
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }


def contents() -> dict[str, str]:
    """The text of every dashboard by its file name."""
    return {
        f"{uid}.json": json.dumps(dashboard(uid, title, rows), indent=1, ensure_ascii=False) + "\n"
        for uid, (title, rows) in DASHBOARDS.items()
    }


if __name__ == "__main__":
    for name, text in contents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
