"""The tables of docs/scale.md, made from the figures of `benchmarks.fleet`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from benchmarks.markdown import Figures, listed, percent, table

LAYOUTS: Final = {
    "today": "today",
    "planned": "planned",
    "planned_slow_items": "planned, items every second",
}
LIMITS: Final = {
    "worker_states": "every worker's core: applying states",
    "worker_memory": "a worker's memory",
    "worker_network": "a worker's network",
    "worker_start": "a worker's start: tables and search index",
    "request_time": "a request's time against its budget",
    "updater_compute": "an updater's core",
    "updater_memory": "an updater's memory",
    "updater_network": "an updater's network",
    "updater_start": "an updater's start from its snapshot",
    "broker_network": "the brokers' network: states to all who read them",
    "partitions": "partitions of a cluster",
}
_NONE: Final = "no number suffices"


def costs(figures: Figures) -> str:
    """What is measured on one core, and how well the sums meet a measurement of the whole."""
    told, check = figures["costs"], figures["check"]
    rows = [
        (
            "a worker's memory: per user / per item",
            f"{told['worker_user_bytes']:,.0f} / {told['worker_item_bytes']:,.0f} bytes",
        ),
        ("a worker's memory without either", f"{told['worker_base_bytes'] / 1e9:.1f} GB"),
        (
            "a user's / an item's state as a record",
            f"{told['user_state_bytes']:,.0f} / {told['item_state_bytes']:,.0f} bytes",
        ),
        ("states taken over a second: of users / of items", _rates(told, "user_state_apply_s", "item_state_apply_s")),
        ("states encoded a second: of users / of items", _rates(told, "user_state_encode_s", "item_state_encode_s")),
        ("events a second, decoded and applied", _rates(told, "event_s")),
        ("scoring of 20 candidates, exits at the base threshold", f"{20e3 * told['score_s']:.1f} ms"),
        ("search for similar users: exact, per million", f"{1e9 * told['search_s_per_user']:.1f} ms"),
        ("events a second that fill today's updater on MovieLens 100K, by these sums", f"{check['predicted']:,.0f}"),
        (
            "the same, measured through Kafka",
            "not measured" if check["measured"] is None else f"{check['measured']:,.0f}",
        ),
    ]
    return table(("cost", "measured"), rows)


def _rates(told: Figures, *names: str) -> str:
    return listed((1 / told[name] for name in names), ",.0f")


def sizes(figures: Figures) -> str:
    """How many of everything, how large, how much traffic and money."""
    return _each(figures, _sizes)


def limits(figures: Figures) -> str:
    """The share of the load at which each limit is reached."""
    return _each(figures, _limits)


def simulated(figures: Figures) -> str:
    """Latency and freshness by simulation, and the formulas beside it."""
    return _each(figures, _simulated)


def _each(figures: Figures, part: Callable[[Figures], str]) -> str:
    return "\n\n".join(f"{_title(fleet['load'])}\n\n{part(fleet)}" for fleet in figures["fleets"])


def _title(load: Figures) -> str:
    return (
        f"**{_many(load['users'])} users, {_many(load['events_per_second'])} events/s, "
        f"{load['requests_per_second']:,.0f} requests/s of {load['candidates']} candidates, "
        f"{_many(load['items'])} items**"
    )


def _many(number: float) -> str:
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:g} {name}"
    return f"{number:,.0f}"


def _sizes(fleet: Figures) -> str:
    by_layout = [fleet[name] for name in LAYOUTS]
    rows: list[tuple[str, Callable[[Any], str]]] = [
        ("workers", lambda told: f"{told['workers']:,}" if told["works"] else _NONE),
        ("updaters, and as many that stand by", lambda told: f"{told['updaters']:,}" if told["works"] else _NONE),
        ("partitions", lambda told: f"{told['partitions']:,}" if told["works"] else _NONE),
        ("memory of a worker / an updater", lambda told: f"{told['worker_gb']:,.0f} / {told['updater_gb']:,.0f} GB"),
        (
            "a worker's core: states / in all",
            lambda told: (
                f"{told['states_share']:.2f} / {told['worker_share']:.2f}"
                if told["works"]
                else f"{told['states_share']:.2f} / –"
            ),
        ),
        (
            "an updater's core: exchange / in all",
            lambda told: listed((told["exchange_share"], told["updater_share"]), ".2f"),
        ),
        ("written to the state topics", lambda told: f"{told['state_mb_per_second']:,.0f} MB/s"),
        ("read by each worker", lambda told: f"{told['worker_read_mb_per_second']:,.0f} MB/s"),
        (
            "sent by the brokers",
            lambda told: f"{told['broker_sent_mb_per_second']:,.0f} MB/s" if told["works"] else "–",
        ),
        (
            "start of a worker: tables + search index",
            lambda told: f"{_time(told['fill_s'])} + {_time(told['training_s'])}",
        ),
        ("start of an updater", lambda told: _time(told["restore_s"])),
        (
            "search per request",
            lambda told: f"{told['retrieval_ms']:,.2f} ms",
        ),
        (
            "cores, memory in all",
            lambda told: f"{told['cores']:,}, {told['memory_gb']:,.0f} GB" if told["works"] else "–",
        ),
        ("US$ per million scores", lambda told: f"{told['usd_per_million_scores']:.3f}" if told["works"] else "–"),
    ]
    return table(("", *LAYOUTS.values()), [(name, *(cell(told) for told in by_layout)) for name, cell in rows])


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "never ready"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"


def _limits(fleet: Figures) -> str:
    breaks = {name: fleet[name]["breaks_at"] for name in LAYOUTS}
    order = sorted(LIMITS, key=lambda limit: (breaks["today"][limit] is None, breaks["today"][limit] or 0.0))
    rows = (
        (
            what,
            *(_share(breaks[name][limit], first=limit == fleet[name]["first"]) for name in LAYOUTS),
        )
        for limit, what in ((limit, LIMITS[limit]) for limit in order)
    )
    return table(("reached at this multiple of the load", *LAYOUTS.values()), rows)


def _share(at: float | None, *, first: bool) -> str:
    if at is None:
        return "–"
    text = f"{at:.2g} ×" if at < 10 else f"{at:,.0f} ×"
    return f"**{text}**" if first else text


def _simulated(fleet: Figures) -> str:
    head = (
        "",
        "load",
        "workers, updaters",
        "US$ per million scores",
        "p50 / p99",
        "freshness p50 / p99",
        "utilisation, worker / updater",
        "by formula",
        "mean wait",
        "by formula",
    )
    return table(head, [(title, *_run(fleet[name]["simulated"])) for name, title in LAYOUTS.items()])


def _run(told: Figures) -> tuple[str, ...]:
    counts = f"{told['workers']:,}, {told['updaters']:,}"
    usd = f"{told['usd_per_million_scores']:.3f}"
    if "p50_ms" not in told:
        return (f"{told['at']:.2g} ×", counts, usd, "queues grow without end")
    formula = told["formula"]
    return (
        f"{told['at']:.2g} ×",
        counts,
        usd,
        f"{told['p50_ms']:.0f} / {told['p99_ms']:.0f} ms",
        f"{told['freshness_p50_ms']:.0f} / {told['freshness_p99_ms']:.0f} ms",
        f"{percent(told['worker_share'])} / {percent(told['updater_share'])}",
        f"{percent(formula['worker_share'])} / {percent(formula['updater_share'])}",
        f"{told['mean_wait_ms']:.1f} ms",
        f"{formula['mean_wait_ms']:.1f} ms",
    )
