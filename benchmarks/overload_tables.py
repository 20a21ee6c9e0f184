"""The tables of `benchmarks.overload`, made from its JSON file."""

from __future__ import annotations

from benchmarks.markdown import Figures, difference, measured, percent, rounded_down, table


def terminal(figures: Figures) -> str:
    """All of them, for the terminal."""
    return "\n\n".join((f"shipped\n{shipped(figures)}", f"deep\n{deep(figures)}", more(figures)))


def short(figures: Figures) -> str:
    """The worker as shipped beside its rival, for the README."""
    rows = (
        (
            f"{level['load']:g} ×",
            rounded_down(level["answered_share"]),
            rounded_down(level["within_budget_share"]),
            f"{level['mean_exit_layer']:.1f}",
            f"{level['auc']:.4f}",
            f"{rival['auc']:.4f}",
            difference(level["auc_against_rival"]),
        )
        for level, rival in _pairs(figures, "shipped")
    )
    exit_layer = f"mean exit layer of {figures['layers']}"
    head = ("load", "answered", "within budget", exit_layer, "AUC", "AUC, fixed threshold", "difference, 95 % interval")
    return table(head, rows)


def shipped(figures: Figures) -> str:
    """The worker as shipped and its rival."""
    return _levels(figures, "shipped")


def deep(figures: Figures) -> str:
    """The worker that starts from full depth, and its rival."""
    return _levels(figures, "deep")


def beside_full_depth(figures: Figures) -> str:
    """The worker as shipped beside one that always wants the final head, where all heads are equally good."""
    rows = (
        (
            *_served(level),
            percent(level["share_graph"]),
            rounded_down(rival["within_budget_share"]),
            percent(rival["share_graph"]),
        )
        for level, rival in zip(
            figures["workers"]["shipped"]["levels"], figures["workers"]["deep_fixed"]["levels"], strict=True
        )
    )
    exit_layer = f"mean exit layer of {figures['layers']}"
    ours = ("load", "answered", "within budget", "p50 / p99 ms", exit_layer, "left to the graph")
    return table((*ours, "final head only: within budget", "left to the graph"), rows)


def more(figures: Figures) -> str:
    """Capacity, quality at both ends of the ladder, recovery, backlog, memory."""
    backlog, bursts, graph = figures["backlog"], figures["bursts"], figures["graph"]
    recoveries = " / ".join(_seconds(bursts[worker]["recovery_seconds"]) for worker in ("shipped", "deep"))
    last = f"{backlog['late_answered']:,}, the last {backlog['seconds_after_ready']:.1f} s after ready"
    memory_mb = figures["peak_rss_mb"] - figures["idle_rss_mb"]
    return measured(
        ("full-depth capacity C", f"{figures['capacity_requests_per_second']:.1f} requests/s"),
        (f"AUC of the {figures['pages']} pages without load, full depth", f"{figures['full_depth']['auc']:.4f}"),
        ("the same, graph score alone", f"{graph['auc']:.4f}: {difference(graph['auc_against_full_depth'])}"),
        ("recovery after a burst of 5 C, as shipped / from full depth", recoveries, "2 s"),
        (f"of {backlog['late_requests']:,} late requests at start answered", last, "all, 5 s"),
        ("fresh requests beside them, within budget", rounded_down(backlog["fresh"]["within_budget_share"]), "100 %"),
        ("memory above idle, highest of all runs as shipped", f"{memory_mb:.0f} MB", "300 MB"),
    )


def _levels(figures: Figures, worker: str) -> str:
    """A worker at every load, then what its answers are worth beside its rival's."""
    own, compared = [], []
    for level, rival in _pairs(figures, worker):
        ways = ", ".join(percent(level[f"share_{way}"]) for way in ("confident", "final", "deadline", "graph"))
        own.append((*_served(level), ways))
        compared.append(
            (
                f"{level['load']:g} C",
                f"{level['auc']:.4f}",
                difference(level["auc_against_full_depth"]),
                f"{rival['auc']:.4f}",
                percent(rival["share_graph"]),
                rounded_down(rival["within_budget_share"]),
                difference(level["auc_against_rival"]),
            )
        )
    head = ("load", "answered", "within budget", "p50 / p99 ms", "mean exit layer", "early, final, forced, graph")
    against = (
        "load",
        "AUC",
        "against full depth",
        "rival: AUC",
        "rival: graph",
        "rival: within budget",
        "against rival",
    )
    return f"{table(head, own)}\n\n{table(against, compared)}"


def _served(level: Figures) -> tuple[str, ...]:
    """Load, answered, within budget, p50 / p99, mean exit layer."""
    return (
        f"{level['load']:g} C",
        rounded_down(level["answered_share"]),
        rounded_down(level["within_budget_share"]),
        f"{level['p50_ms']:,.0f} / {level['p99_ms']:,.0f}",
        f"{level['mean_exit_layer']:.1f}",
    )


def _pairs(figures: Figures, worker: str) -> list[tuple[Figures, Figures]]:
    workers = figures["workers"]
    return list(zip(workers[worker]["levels"], workers[f"{worker}_fixed"]["levels"], strict=True))


def _seconds(seconds: float | None) -> str:
    return "not before the load changed again" if seconds is None else f"{seconds:.2f} s"
