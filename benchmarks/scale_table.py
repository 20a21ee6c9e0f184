"""The table of `benchmarks.scale`."""

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
