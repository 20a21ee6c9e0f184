"""How many machines does a fleet take, and what breaks first? By sums and by a discrete-event model, fed with costs
that were measured; no Kafka, no fleet, some seconds on one core.

    python -m benchmarks.fleet --users 10000000 --events-per-second 20000 --requests-per-second 1000 --out FILE

Several numbers after each option are several fleets. Beside the product as it is (`today`) stands a layout that is
planned and not built (`planned`, `planned_slow_items`), all explained in `benchmarks.fleet_capacity`. Costs come from
docs/figures and from a calibration of half a minute through the product's own code; `--measured` takes them from a
file: an object with the names of `benchmarks.fleet_costs.Costs`, or an earlier run's figures. A file that names only
some stands above the calibration.

JSON: `costs`, `bounds`, `prices`, `seed`, `check` (the most events per second of today's updater on MovieLens 100K:
`predicted` by these sums, `measured` by `benchmarks.freshness`), and `fleets`, each with its `load` and, by layout:

- `works` (whether every limit is kept), `workers`, `updaters` (active), `standbys`, `partitions`, `cores`, `memory_gb`
  (of all processes), `worker_gb`, `updater_gb`, `usd_per_million_scores` (null if it does not work);
- `state_mb_per_second` (written to the state topics), `worker_read_mb_per_second` (by each worker),
  `broker_sent_mb_per_second`, `exchange_mb_per_second` (between updaters);
- `fill_s` and `training_s` (start of a worker: tables, then search index; null is without end), `restore_s` (of an
  updater), `retrieval_ms` (search per request);
- `worker_share`, `states_share`, `updater_share`, `exchange_share` (of one core);
- `limits` (demand ÷ what there is, at these counts), `breaks_at` (by limit, the share of the load at which it is
  reached while users, events and requests grow together; null beyond 100), `first` (the lowest), `first_at`;
- `simulated`: `at` (share of the load; where the load itself cannot be carried, 0.9 of what can); `workers`, `updaters`
  and `usd_per_million_scores` there, `formula` (utilisations and mean wait), and the figures of
  `benchmarks.fleet_simulation.simulate`.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.fill_docs import FIGURES
from benchmarks.fleet_calibration import measured
from benchmarks.fleet_capacity import (
    ITEM_FLUSH_S,
    Bounds,
    Fleet,
    Layout,
    Load,
    partition_count,
    ratios,
    sized,
    sustained_events,
)
from benchmarks.fleet_costs import NAMES, Costs, FleetError, gathered, given, kept
from benchmarks.fleet_simulation import Flow, mean_wait_s, simulate
from benchmarks.harness import exit_on_error, finish
from runtime.errors import ExitstreamError

_GB: Final = 1e9
_MB: Final = 1e6
_MOVIELENS: Final = (943, 1_682)
"""Users and items of MovieLens 100K."""
_SHARES: Final = tuple(1.1**step for step in range(-97, 49))
"""Of the load, from 0.0001 to 100, at which limits are looked at."""
_BELOW: Final = 0.9


@dataclass(frozen=True)
class Prices:
    """US dollars per hour. Assumptions, in the order of what clouds ask for without reservation."""

    core: float = 0.04
    memory_gb: float = 0.005


def main() -> None:
    """Run it from the command line."""
    options = _arguments().parse_args()
    try:
        loads = _loads(options)
        from_file = given(options.measured) if options.measured else {}
        sources = [] if from_file.keys() >= NAMES else [kept(FIGURES), measured()]
        costs = gathered(*sources, from_file)
        bounds = replace(
            Bounds(),
            memory_bytes=options.memory_gb * _GB,
            network_bytes_per_second=options.network_gbit * _GB / 8,
            broker_bytes_per_second=options.broker_gbit * _GB / 8,
            start_s=options.start_s,
        )
        prices = Prices(options.price_per_core_hour, options.price_per_gb_hour)
        fleets = [
            {"load": asdict(load)}
            | {
                layout: told(layout, load, costs, (bounds, prices), options.jobs, options.seed)
                for layout in ITEM_FLUSH_S
            }
            for load in loads
        ]
    except ExitstreamError as error:
        exit_on_error(error)
    figures = {"costs": costs.to_json(), "bounds": asdict(bounds), "prices": asdict(prices), "seed": options.seed}
    finish(figures | {"check": check(costs, FIGURES), "fleets": fleets}, options.out)


def check(costs: Costs, folder: Path) -> dict[str, float | None]:
    """Events per second of today's updater on a real data set, by these sums and as measured through Kafka."""
    file = folder / "freshness.json"
    rows = json.loads(file.read_text())["rates"] if file.exists() else []
    return {
        "predicted": sustained_events(costs, *_MOVIELENS),
        "measured": max((row["events_per_second"] for row in rows), default=None),
    }


def _arguments() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, what in (
        ("--users", "users with a state"),
        ("--events-per-second", "interactions, of users drawn alike and items by Zipf's law"),
        ("--requests-per-second", "requests to be scored"),
    ):
        arguments.add_argument(name, type=float, nargs="+", required=True, help=what)
    arguments.add_argument("--items", type=float, default=1e6)
    arguments.add_argument("--candidates", type=int, default=20, help="of a request")
    arguments.add_argument("--history", type=float, default=50, help="past interactions of a user, each also an edge")
    arguments.add_argument("--memory-gb", type=float, default=256, help="most memory of a process")
    arguments.add_argument("--network-gbit", type=float, default=10, help="of a process, each way")
    arguments.add_argument("--broker-gbit", type=float, default=1_000, help="that all brokers together can send")
    arguments.add_argument("--start-s", type=float, default=600, help="longest start of a process that is accepted")
    arguments.add_argument("--price-per-core-hour", type=float, default=Prices.core, help="US dollars, an assumption")
    arguments.add_argument("--price-per-gb-hour", type=float, default=Prices.memory_gb, help="the same, of memory")
    arguments.add_argument("--measured", type=Path, help="JSON file with costs; without, or for others: calibration")
    arguments.add_argument("--jobs", type=int, default=50_000, help="about so many are simulated for each fleet")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    return arguments


def _loads(options: argparse.Namespace) -> list[Load]:
    rows = (options.users, options.events_per_second, options.requests_per_second)
    if len({len(row) for row in rows}) > 1:
        raise FleetError(
            "--users, --events-per-second and --requests-per-second need as many numbers as there are fleets; "
            f"given are {', '.join(str(len(row)) for row in rows)}"
        )
    return [
        Load(users, options.items, events, requests, options.candidates, options.history)
        for users, events, requests in zip(*rows, strict=True)
    ]


def told(
    layout: Layout, load: Load, costs: Costs, terms: tuple[Bounds, Prices], jobs: int, seed: int
) -> dict[str, Any]:
    """All figures of one layout under one load; the keys are in this module's docstring."""
    bounds, prices = terms
    best, works = sized(layout, load, costs, bounds)
    breaks = breaking_shares(layout, load, costs, bounds)
    reached = {name: at for name, at in breaks.items() if at is not None}
    first = min(reached, key=lambda name: reached[name], default=None)
    cores, memory_gb = _bought(best)
    at = 1.0 if works or first is None else _BELOW * reached[first]
    return {
        "works": works,
        "workers": best.workers,
        "updaters": best.updaters,
        "standbys": best.updaters,
        "partitions": partition_count(layout, best, bounds),
        "cores": cores,
        "memory_gb": memory_gb,
        "usd_per_million_scores": _usd(best, load, prices) if works else None,
        **_sizes(best),
        "limits": ratios(layout, best, bounds)
        | {"worker_start": _finite(ratios(layout, best, bounds)["worker_start"])},
        "breaks_at": breaks,
        "first": first,
        "first_at": None if first is None else reached[first],
        "simulated": {"at": at} | _simulated(layout, load.scaled(at), costs, terms, jobs, seed),
    }


def _bought(best: Fleet) -> tuple[int, float]:
    """Cores and GB of all processes; for each active updater another one stands by."""
    updaters = 2 * best.updaters
    return best.workers + updaters, (best.workers * best.worker_bytes + updaters * best.updater_bytes) / _GB


def _usd(best: Fleet, load: Load, prices: Prices) -> float:
    """US dollars per million scores."""
    cores, memory_gb = _bought(best)
    scores_per_hour = 3_600 * load.requests_per_second * load.candidates
    return 1e6 * (cores * prices.core + memory_gb * prices.memory_gb) / scores_per_hour


def _sizes(best: Fleet) -> dict[str, float | None]:
    return {
        "worker_gb": best.worker_bytes / _GB,
        "updater_gb": best.updater_bytes / _GB,
        "state_mb_per_second": best.state_bytes / _MB,
        "worker_read_mb_per_second": best.worker_read_bytes / _MB,
        "broker_sent_mb_per_second": best.sent_bytes / _MB,
        "exchange_mb_per_second": best.exchange_bytes / _MB,
        "fill_s": _finite(best.fill_s),
        "training_s": best.training_s,
        "restore_s": best.restore_s,
        "retrieval_ms": 1e3 * best.retrieval_s,
        "worker_share": best.worker_share,
        "states_share": best.states_share,
        "updater_share": best.updater_share,
        "exchange_share": best.exchange_share,
    }


def breaking_shares(layout: Layout, load: Load, costs: Costs, bounds: Bounds) -> dict[str, float | None]:
    """By limit, the share of the load at which it is reached however many workers there are; None beyond 100."""
    before: dict[str, float] = {}
    breaks: dict[str, float | None] = {}
    earlier = _SHARES[0]
    for share in _SHARES:
        scaled = load.scaled(share)
        now = ratios(layout, sized(layout, scaled, costs, bounds)[0], bounds)
        for name, ratio in now.items():
            if ratio > 1 and name not in breaks:
                breaks[name] = _between(earlier, share, before.get(name, ratio), ratio)
        before, earlier = now, share
    return {name: breaks.get(name) for name in before}


def _between(earlier: float, share: float, before: float, after: float) -> float:
    """Where a power law through both ratios reaches 1."""
    if not before < 1 < after < math.inf:
        return share
    return earlier * math.exp(math.log(share / earlier) * math.log(1 / before) / math.log(after / before))


def _simulated(
    layout: Layout, load: Load, costs: Costs, terms: tuple[Bounds, Prices], jobs: int, seed: int
) -> dict[str, Any]:
    bounds, prices = terms
    best, _ = sized(layout, load, costs, bounds)
    flow = Flow.of(best, load, costs)
    formula = {
        "worker_share": flow.worker_share,
        "updater_share": flow.updater_share,
        "mean_wait_ms": 1e3 * mean_wait_s(flow) if flow.is_stable else None,
    }
    counts = {"workers": best.workers, "updaters": best.updaters, "usd_per_million_scores": _usd(best, load, prices)}
    return counts | {"formula": formula} | (simulate(flow, jobs=jobs, seed=seed) or {})


def _finite(number: float) -> float | None:
    """JSON has no infinity."""
    return number if math.isfinite(number) else None


if __name__ == "__main__":
    main()
