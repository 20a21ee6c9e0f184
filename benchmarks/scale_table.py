"""The tables of `benchmarks.scale`, `benchmarks.partitions` and `benchmarks.takeover`."""

from __future__ import annotations

from typing import Final

from benchmarks.markdown import Figures, table

_TABLES: Final = (
    ("bytes a user, index included", "bytes_per_user", ",.0f", "≤ 700"),
    ("states taken over a second, at a start", "fill_states_per_second", ",.0f", "≥ 200,000"),
    ("… where the updater writes MessagePack", "fill_states_per_second_msgpack", ",.0f", ""),
    ("states taken over a second, of known users", "update_states_per_second", ",.0f", ""),
    ("a slice of them: p50, ms", "stall_ms_p50", ".2f", ""),
    ("a slice of them: p99, ms", "stall_ms_p99", ".2f", "≤ 1"),
)


def scale(figures: Figures) -> str:
    """What a million users take, with histories as they are and all of them full."""
    full = figures["full_histories"]
    rows = [(name, format(figures[key], form), format(full[key], form), goal) for name, key, form, goal in _TABLES] + [
        (
            "user states encoded a second, full histories",
            "",
            f"{figures['states_per_second_encoded']:,.0f}",
            "≥ 150,000",
        ),
        ("… as MessagePack", "", f"{figures['states_per_second_encoded_msgpack']:,.0f}", ""),
        (
            "updater: events of distinct users a second, without broker",
            "",
            f"{figures['updater_events_per_second_without_broker']:,.0f}",
            "≥ 40,000",
        ),
        *_shards(figures),
        ("start of a worker, s: no states", f"{figures['start_seconds_without_states']:.0f}", "", ""),
        ("start of a worker, s: from the topics", f"{figures['start_seconds']:.0f}", "", ""),
        ("start of a worker, s: with saved tables", f"{figures['restart_seconds']:.0f}", "", "≤ 20"),
    ]
    head = (
        f"{figures['users']:,} users",
        f"histories of {figures['mean_history']:.0f} on average",
        "all of 50",
        "goal",
    )
    return table(head, rows)


def partitions(figures: Figures) -> str:
    """AUC by the number of partitions among whose users similar ones are found."""
    rows = []
    for count, auc, cost in zip(figures["partitions"], figures["auc"], figures["difference"], strict=True):
        points = [f"{100 * cost[part]:+.2f}" for part in ("difference", "low", "high")]
        rows.append((str(count), f"{auc:.4f}", "" if count == 1 else f"{points[0]} ({points[1]} to {points[2]})"))
    return table(("partitions", "AUC, last head", "against one, points (95 % interval)"), rows)


def takeover(figures: Figures) -> str:
    """What requests notice when a worker leaves and when another takes its place, by how users are held."""
    runs = figures["runs"]

    def row(name: str, form: str, *keys: str) -> tuple[str, ...]:
        values = []
        for run in runs.values():
            value = run
            for key in keys:
                value = value[key]
            values.append(format(value, form))
        return (name, *values)

    rows = [
        row("memory of a worker for states, MB", ",.0f", "memory_mb"),
        row("users held by both workers", ",.0f", "users_held"),
    ]
    for moment, keys in (("leaves", "leaves"), ("comes", "comes")):
        rows += [
            row(f"one {moment}: requests", ",.0f", keys, "requests"),
            row("… lost", ",.0f", keys, "lost"),
            row(f"… late (budget {figures['budget_ms']} ms)", ",.0f", keys, "late"),
            row("… p99, ms", ",.0f", keys, "p99_ms"),
            row("… answered before the user's state was read", ",.0f", keys, "without_user"),
            row("… candidates answered by the graph", ".1%", keys, "graph"),
        ]
    return table((f"{figures['users']:,} users, {figures['partitions']} partitions", *runs), rows)


def _shards(figures: Figures) -> list[tuple[str, str, str, str]]:
    return [
        (
            f"{count} updater{'s' if count > 1 else ''}: the same, together, parts of items told",
            "",
            f"{rate:,.0f}",
            goal,
        )
        for count, rate, goal in zip(
            figures.get("shards_measured", ()),
            figures.get("updater_events_per_second", ()),
            ("≥ 40,000", "≥ 80,000"),
            strict=False,
        )
    ]
