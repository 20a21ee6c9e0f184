"""Is every request answered in time under load, and how good are the answers compared with workers that do not adapt?

    python -m benchmarks.overload --data ../shared/datasets/ml-100k --out out/overload.json

Open loop through real Kafka: Poisson arrivals at multiples of the worker's own full-depth capacity, bursts, and a start
with a backlog of late requests. Latency is counted from when a request was due until its scores can be read from the
topic. The worker is pinned to one processor, broker and load generator to another, so that the load does not slow down
what it measures. It takes about a quarter of an hour; `--seconds`, `--loads` and `--pages` shorten it.

    python -m benchmarks.overload --bundle LARGE --budget-ms 6000 --precision bfloat16 --loads 1 3 --pages 24 …

For a model that takes seconds a page: the same with other numbers, and `--backlog` smaller.

Four workers meet the same arrivals, level by level:

- `shipped`: the settings as shipped; the threshold starts from the bundle's calibrated base.
- `shipped_fixed`: its rival, base = floor = the calibrated base.
- `deep`: base `--base-threshold` (1: the final head without load), the longest way that the threshold can have to fall.
- `deep_fixed`: its rival, always the final head.

Every level scores one fixed set of pages a whole number of times, in the same order (its prefixes exceed the worker's
prefix cache many times over, so repeating them saves nothing). A level's AUC is the mean AUC of its passes; differences
come with 95 % intervals of a paired bootstrap over pages (`benchmarks.paired_auc`).

Keys of the JSON file:

- `capacity_requests_per_second`, `budget_ms`, `precision`, `seconds`, `pages`, `candidates`, `layers`, `pinned`: the
  conditions.
- `full_depth.auc`: all pages at the final head, without load; `graph.auc`: all of them by the graph score.
  `graph.auc_against_full_depth`: {difference, low, high}.
- `workers.<worker>`: `base_threshold`, `floor_threshold` and `levels`, for each load `load` (in capacities), `passes`,
  `requests`, `answered_share`, `within_budget_share` (readable in time), `scored_late_share`, `p50_ms`, `p99_ms`,
  `mean_exit_layer`, `share_confident`, `share_final`, `share_deadline`, `share_graph`, `threshold_mean`,
  `threshold_std`, `auc`, `auc_against_full_depth` and, where the worker has a rival, `auc_against_rival`.
- `bursts.shipped`, `bursts.deep`: a run with two bursts: the same shares and latencies, and `recoveries_seconds`, for
  each burst from its end until a request was scored at base (within 5 %) and all later ones until the next change of
  load were too; null if that never came. `recovery_seconds` is the longest.
- `backlog`: `late_requests`, `late_answered`, `seconds_after_ready`, and `fresh`, the shares and latencies of the fresh
  requests beside them.
- `idle_rss_mb`, `peak_rss_mb`: memory of the shipped worker.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import numpy as np

from benchmarks import overload_tables
from benchmarks.harness import add_broker, add_bundle, bundle_folder, exit_on_error, finish, parser
from benchmarks.overload_figures import BUDGET_MS, Answers, longest, pair_counts, recovery_s, scored_at, summary
from benchmarks.overload_plots import draw
from benchmarks.overload_site import OTHER_CPU, WORKER_CPU, Site, publish_states, resident_mb
from benchmarks.paired_auc import PairCounts, difference
from event_data.load import load_log
from loadgen.brokers import open_broker
from loadgen.open_loop import OpenLoop, poisson
from loadgen.plan import make_plan
from loadgen.player import Player
from models.bundle import Bundle
from programs.topics import TopicSettings
from runtime.errors import ExitstreamError
from runtime.settings import KafkaSettings
from worker.engine.settings import Precision

CANDIDATES: Final = 20
LOADS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_LOAD: Final = 0.5
"""The load between bursts and beside a backlog."""
BURST_LENGTH: Final = 1 / 15
"""Of a burst, as a share of a run: 2 s of 30."""
BURST_LOAD: Final = 5.0
BURSTS_AT: Final = (0.2, 0.45)
"""Where bursts begin, as shares of a run."""
STEP_AT: Final = 0.75
"""Where the load rises for good, as a share of a run."""
BACKLOG: Final = 20_000
LATE_S: Final = 5.0
"""By how much its requests are late."""
WARM_UP: Final = 50
"""Pages before the capacity is measured."""
UNHURRIED_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Level:
    """What a worker did at one load."""

    load: float
    figures: Mapping[str, float]
    counts: PairCounts

    def row(self, full_depth: PairCounts, rival: Level | None) -> dict[str, Any]:
        """For the JSON file."""
        compared = {"auc_against_full_depth": full_depth} | ({"auc_against_rival": rival.counts} if rival else {})
        differences = {name: msgspec.to_builtins(difference(self.counts, other)) for name, other in compared.items()}
        return {"load": self.load, **self.figures, "auc": float(self.counts.auc()), **differences}


def main() -> None:
    """Measure everything, draw the plots, print the figures."""
    arguments = parser(__doc__ or "")
    add_bundle(arguments)
    add_broker(arguments)
    arguments.add_argument("--seconds", type=float, default=30.0, help="length of each level")
    arguments.add_argument("--loads", type=float, nargs="+", default=LOADS, help="levels, in full-depth capacities")
    arguments.add_argument("--pages", type=int, help="size of the fixed set; without: all pages with 20 candidates")
    arguments.add_argument(
        "--base-threshold", type=float, default=1.0, help="base of the worker `deep`; 1: the final head without load"
    )
    arguments.add_argument("--budget-ms", type=int, default=BUDGET_MS, help="of every request")
    arguments.add_argument("--precision", choices=get_args(Precision), default="float32", help="of all workers")
    arguments.add_argument(
        "--backlog", type=int, default=BACKLOG, help="late requests that a worker finds at its start"
    )
    options = arguments.parse_args()
    log = load_log(options.data)
    bundle = bundle_folder(options.bundle, log)
    os.sched_setaffinity(0, {OTHER_CPU})
    gc.disable()  # the answers are millions of objects; a collection's pause would count as the worker's latency
    try:
        with open_broker(options.broker, cpus=str(OTHER_CPU)) as bootstrap:
            full = [page for page in make_plan(log, 10**9).impressions if len(page.events) == CANDIDATES]
            site = Site(
                kafka=KafkaSettings(bootstrap_servers=bootstrap),
                topics=TopicSettings(),
                bundle=bundle,
                pages=full[: options.pages],
                folder=options.out.with_suffix(".logs"),
                seconds=options.seconds,
                loads=options.loads,
                budget_ms=options.budget_ms,
                precision=options.precision,
            )
            publish_states(site, Player(site.kafka, site.topics, make_plan(log, 1), rate=1.0))
            figures = measure(site, options.base_threshold, options.backlog, options.out)
    except ExitstreamError as error:
        exit_on_error(error)
    print(overload_tables.terminal(figures))
    finish(figures, options.out)


def measure(site: Site, deep_base: float, backlog_size: int, out: Path) -> dict[str, Any]:
    """All figures."""
    bundle = Bundle.load(site.bundle)
    base, floor = bundle.calibration.base_threshold, bundle.calibration.floor_threshold
    with site.worker(base_threshold=1.0, floor_threshold=1.0):
        capacity, full_depth = asyncio.run(measure_full_depth(site))
        deep_fixed = asyncio.run(all_levels(site, capacity))
    with site.worker() as processes:
        idle_mb = resident_mb(processes.pid("worker"), "VmRSS")
        shipped = asyncio.run(all_levels(site, capacity))
        shipped_burst = asyncio.run(bursts(site, capacity))
        peak_mb = resident_mb(processes.pid("worker"), "VmHWM")
    with site.worker(base_threshold=base, floor_threshold=base):
        shipped_fixed = asyncio.run(all_levels(site, capacity))
    with site.worker(base_threshold=deep_base):
        deep = asyncio.run(all_levels(site, capacity))
        deep_burst = asyncio.run(bursts(site, capacity))
    backlog, late_answers, backlog_peak_mb = asyncio.run(measure_backlog(site, capacity, backlog_size))
    graph = pair_counts(late_answers, site.pages)

    def rows(levels: Sequence[Level], rivals: Sequence[Level] | None = None) -> list[dict[str, Any]]:
        return [level.row(full_depth, rivals[place] if rivals else None) for place, level in enumerate(levels)]

    figures: dict[str, Any] = {
        "capacity_requests_per_second": capacity,
        "budget_ms": site.budget_ms,
        "precision": site.precision,
        "seconds": site.seconds,
        "pages": len(site.pages),
        "candidates": CANDIDATES,
        "layers": bundle.model.config.exit_layers[-1],
        "pinned": f"worker on processor {WORKER_CPU}, broker and load generator on processor {OTHER_CPU}",
        "full_depth": {"auc": float(full_depth.auc())},
        "graph": {
            "auc": float(graph.auc()),
            "auc_against_full_depth": msgspec.to_builtins(difference(graph, full_depth)),
        },
        "workers": {
            "shipped": {"base_threshold": base, "floor_threshold": floor, "levels": rows(shipped, shipped_fixed)},
            "shipped_fixed": {"base_threshold": base, "floor_threshold": base, "levels": rows(shipped_fixed)},
            "deep": {"base_threshold": deep_base, "floor_threshold": floor, "levels": rows(deep, deep_fixed)},
            "deep_fixed": {"base_threshold": 1.0, "floor_threshold": 1.0, "levels": rows(deep_fixed)},
        },
        "bursts": {
            "shipped": burst_figures(site, shipped_burst, base),
            "deep": burst_figures(site, deep_burst, deep_base),
        },
        "backlog": backlog,
        "idle_rss_mb": idle_mb,
        "peak_rss_mb": max(peak_mb, backlog_peak_mb),
    }
    draw(figures["workers"], shipped_burst, base, out)
    return figures


async def measure_full_depth(site: Site) -> tuple[float, PairCounts]:
    """Requests per second that the worker scores with the final head, and how it ranks the pages."""
    async with OpenLoop(site.kafka, site.topics, patience_s=UNHURRIED_MS / 1000) as loop:
        # With an hour's budget nothing is forced: all requests queue up and are worked off at full speed.
        await loop.run(site.arrivals([0.0] * min(WARM_UP, len(site.pages)), budget_ms=UNHURRIED_MS))
        started = time.perf_counter()
        answers = await loop.run(site.arrivals([0.0] * len(site.pages), budget_ms=UNHURRIED_MS))
        return len(site.pages) / (time.perf_counter() - started), pair_counts(answers, site.pages)


async def all_levels(site: Site, capacity: float) -> list[Level]:
    """Every load in turn, with a second's rest in between."""
    levels = []
    async with OpenLoop(site.kafka, site.topics) as loop:
        for load in site.loads:
            await asyncio.sleep(1.0)
            answers = await loop.run(site.level(load * capacity))
            counts = pair_counts(answers, site.pages)
            figures = {"passes": len(answers) // len(site.pages), **summary(answers, site.budget_ms)}
            levels.append(Level(load, figures, counts))
            print({"load": load, **figures, "auc": float(counts.auc())}, file=sys.stderr)
    return levels


async def bursts(site: Site, capacity: float) -> Answers:
    """A steady load, two bursts over it, then a step up that stays.

    The steady requests come at even intervals: then what moves the threshold between bursts is the bursts, not chance.
    """
    random = np.random.default_rng(1)
    steady = np.arange(0.0, site.seconds, 1.0 / (STEADY_LOAD * capacity))
    burst_s = site.seconds * BURST_LENGTH
    burst = round(BURST_LOAD * capacity * burst_s)
    over = [poisson(burst, burst_s, random, site.seconds * share) for share in BURSTS_AT]
    rest_s = site.seconds * (1 - STEP_AT)
    step = poisson(round(capacity * rest_s), rest_s, random, site.seconds * STEP_AT)
    async with OpenLoop(site.kafka, site.topics) as loop:
        return await loop.run(site.arrivals(np.sort(np.concatenate([steady, *over, step])).tolist()))


def burst_figures(site: Site, answers: Answers, base: float) -> dict[str, Any]:
    """How the bursts were answered, and how long it took to recover from each."""
    seconds = site.seconds
    ends = [(share + BURST_LENGTH) * seconds for share in BURSTS_AT]
    next_changes = [share * seconds for share in (*BURSTS_AT[1:], STEP_AT)]
    scored = scored_at(answers)
    recoveries = [recovery_s(scored, base, end, until) for end, until in zip(ends, next_changes, strict=True)]
    return {
        **summary(answers, site.budget_ms),
        "recoveries_seconds": recoveries,
        "recovery_seconds": longest(recoveries),
    }


async def measure_backlog(site: Site, capacity: float, size: int) -> tuple[dict[str, Any], Answers, float]:
    """A worker as shipped that finds so many late requests when it starts, while fresh ones keep coming.

    Returns:
        the figures, the answers to the late requests in the order of sending, and the worker's peak memory in MB.
    """
    seconds = 2 * site.seconds
    fresh = poisson(round(STEADY_LOAD * capacity * seconds), seconds, np.random.default_rng(2))
    late = site.arrivals([-LATE_S - site.budget_ms / 1000] * size)
    async with OpenLoop(site.kafka, site.topics) as loop:
        running = asyncio.create_task(loop.run([*late, *site.arrivals(fresh.tolist())]))
        started_s = time.monotonic()
        await asyncio.sleep(3.0)
        manager = site.worker()
        processes = await asyncio.to_thread(manager.__enter__)
        try:
            ready_ms, ready_s = time.time() * 1000, time.monotonic() - started_s
            answers = await running
            peak_mb = resident_mb(processes.pid("worker"), "VmHWM")
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)
    late_answers, fresh_answers = answers[:size], answers[size:]
    late_ms = [answer.scores.scored_time_ms for answer in late_answers if answer.scores]
    figures = {
        "late_requests": len(late),
        "late_answered": len(late_ms),
        "seconds_after_ready": (max(late_ms, default=ready_ms) - ready_ms) / 1000,
        "fresh": summary([answer for answer in fresh_answers if answer.arrival.due_s > ready_s], site.budget_ms),
    }
    return figures, late_answers, peak_mb


if __name__ == "__main__":
    main()
