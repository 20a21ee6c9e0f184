"""Is every request answered in time under load, and how good are the answers? Beside a worker that never adapts.

    python -m benchmarks.overload --data ../shared/datasets/ml-100k --out out/overload.json

Open loop through real Kafka: Poisson arrivals at multiples of the worker's own full-depth capacity, bursts, and a start
with a backlog of late requests. Latency is counted from when a request was due until its scores can be read from the
topic. The worker is pinned to one processor, broker and load generator to another, so that the load does not slow down
what it measures.

Without load the worker answers from the final head (`--base-threshold 1`): what a user sets who wants depth whenever
there is time for it, and the longest way that the threshold can have to fall. The worker beside it does so always. A
third one begins at the threshold that calibration chose.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.harness import add_bootstrap, add_bundle, bundle_folder, exit_on_error, finish, kafka, parser
from benchmarks.overload_figures import BUDGET_MS, Answers, quality, recovery_seconds, summary
from benchmarks.overload_plots import draw
from event_data.load import load_log
from loadgen.open_loop import Arrival, OpenLoop, poisson
from loadgen.plan import Impression, make_plan
from loadgen.player import Player
from loadgen.processes import Processes, Program
from models.bundle import Bundle
from programs.topics import TopicSettings
from runtime.errors import ExitstreamError
from runtime.kafka import create_missing_topics
from runtime.settings import KafkaSettings

CANDIDATES: Final = 20
LOADS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
BURST_S: Final = 2.0
BURST_LOAD: Final = 5.0
BURSTS_AT: Final = (0.2, 0.45)
"""Where bursts begin, as shares of a run."""
BACKLOG: Final = 20_000
READY_S: Final = 120.0
WORKER_CPU: Final = 0
OTHER_CPU: Final = 1


@dataclass(frozen=True, slots=True)
class Site:
    """Where the measurements are taken: Kafka with the states of the data set's history in it, and requests to send."""

    kafka: KafkaSettings
    topics: TopicSettings
    bundle: Path
    pages: Sequence[Impression]
    folder: Path
    seconds: float
    random: np.random.Generator

    def arrivals(self, times: Sequence[float], budget_ms: int | None = None) -> list[Arrival]:
        """Requests at these moments, pages taken in turn."""
        return [Arrival(float(due), self.pages[n % len(self.pages)], budget_ms) for n, due in enumerate(times)]

    @contextmanager
    def worker(self, **controller: float) -> Iterator[Processes]:
        """A ready worker with these controller settings."""
        environment = {
            "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "EXITSTREAM_WORKER__BUNDLE": str(self.bundle),
            "EXITSTREAM_WORKER__BUDGET_MS": str(BUDGET_MS),
            "EXITSTREAM_WORKER__REQUEST_LOG": "off",
            **{f"EXITSTREAM_WORKER__CONTROLLER__{key.upper()}": str(value) for key, value in controller.items()},
        }
        with Processes(environment, self.folder) as processes:
            processes.start(Program("worker", ["worker"], cpus={WORKER_CPU}))
            processes.wait_ready(READY_S)
            yield processes


def main() -> None:
    """Measure everything, draw the plots, print the figures."""
    arguments = parser(__doc__ or "")
    add_bundle(arguments)
    add_bootstrap(arguments)
    arguments.add_argument("--seconds", type=float, default=30.0, help="length of each level")
    arguments.add_argument(
        "--base-threshold", type=float, default=1.0, help="exit threshold without load; 1: the final head"
    )
    options = arguments.parse_args()
    log = load_log(options.data)
    bundle = bundle_folder(options.bundle, log)
    os.sched_setaffinity(0, {OTHER_CPU})
    gc.disable()  # the answers are millions of objects; a pause to look through them would count as the worker's
    try:
        with kafka(options.bootstrap, cpus=str(OTHER_CPU)) as bootstrap:
            pages = [page for page in make_plan(log, 10**9).impressions if len(page.events) == CANDIDATES]
            site = Site(
                kafka=KafkaSettings(bootstrap_servers=bootstrap),
                topics=TopicSettings(),
                bundle=bundle,
                pages=pages,
                folder=options.out.with_suffix(".logs"),
                seconds=options.seconds,
                random=np.random.default_rng(0),
            )
            publish_states(site, Player(site.kafka, site.topics, make_plan(log, 1), rate=1.0))
            finish(measure(site, options.base_threshold, options.out), options.out)
    except ExitstreamError as error:
        exit_on_error(error)


def publish_states(site: Site, player: Player) -> None:
    """Send the history and let an updater publish what comes of it; then it is no longer needed."""
    environment = {
        "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": site.kafka.bootstrap_servers,
        "EXITSTREAM_UPDATER__BUNDLE": str(site.bundle),
        "EXITSTREAM_UPDATER__SNAPSHOTS": str(site.folder / f"snapshots-{time.time_ns()}"),
    }
    asyncio.run(create_missing_topics(site.kafka, site.topics.specs()))
    with Processes(environment, site.folder) as processes:
        processes.start(Program("updater", ["updater"]))
        asyncio.run(player.prepare(READY_S))


def measure(site: Site, base: float, out: Path) -> dict[str, Any]:
    """All figures."""
    with site.worker(base_threshold=1.0, floor_threshold=1.0):
        capacity, full_depth_auc = asyncio.run(full_depth(site))
    with site.worker(base_threshold=base) as processes:
        idle_mb = resident_mb(processes.pid("worker"), "VmRSS")
        levels = asyncio.run(all_levels(site, capacity))
        burst = asyncio.run(bursts(site, capacity))
        peak_mb = resident_mb(processes.pid("worker"), "VmHWM")
    with site.worker(base_threshold=base, floor_threshold=base):
        fixed_levels = asyncio.run(all_levels(site, capacity))
    with site.worker():
        calibrated_levels = asyncio.run(all_levels(site, capacity))
    late = measure_backlog(site, capacity)
    draw(levels, fixed_levels, burst, base, out)
    return {
        "capacity_requests_per_second": capacity,
        "auc_full_depth": full_depth_auc,
        "auc_graph": quality([answer for answer in late["answers"] if answer.arrival.due_s < 0]),
        "base_threshold": base,
        "levels": levels,
        "fixed_levels": fixed_levels,
        "calibrated_threshold": Bundle.load(site.bundle).calibration.base_threshold,
        "calibrated_levels": calibrated_levels,
        "bursts": summary(burst),
        "recovery_seconds": recovery_seconds(burst, base, [share * site.seconds + BURST_S for share in BURSTS_AT]),
        "backlog": late["figures"],
        "idle_rss_mb": idle_mb,
        "peak_rss_mb": max(peak_mb, late["peak_mb"]),
        "budget_ms": BUDGET_MS,
        "pinned": f"worker on processor {WORKER_CPU}, broker and load generator on processor {OTHER_CPU}",
    }


async def full_depth(site: Site) -> tuple[float, float]:
    """Requests per second that the worker scores with the final head, and the AUC of that."""
    async with OpenLoop(site.kafka, site.topics) as loop:
        # A minute's budget: nothing is forced, everything queues up and is worked off at full speed.
        await loop.run(site.arrivals([0.0] * 50, budget_ms=60_000))
        started = time.perf_counter()
        answers = await loop.run(site.arrivals([0.0] * len(site.pages), budget_ms=60_000))
        return len(site.pages) / (time.perf_counter() - started), quality(answers)


async def all_levels(site: Site, capacity: float) -> list[dict[str, Any]]:
    """Figures of every load, as multiples of the capacity; a breath between two."""
    levels = []
    async with OpenLoop(site.kafka, site.topics) as loop:
        for load in LOADS:
            await asyncio.sleep(1.0)
            times = poisson(load * capacity, site.seconds, site.random)
            levels.append({"load": load, **summary(await loop.run(site.arrivals(times.tolist())))})
            print(levels[-1], file=sys.stderr)
    return levels


async def bursts(site: Site, capacity: float) -> Answers:
    """Half the capacity throughout, and twice a burst over it, then a step up that stays."""
    base = poisson(0.5 * capacity, site.seconds, site.random)
    over = [poisson(BURST_LOAD * capacity, BURST_S, site.random, site.seconds * share) for share in BURSTS_AT]
    step = poisson(capacity, site.seconds * 0.25, site.random, site.seconds * 0.75)
    times = np.sort(np.concatenate([base, *over, step]))
    async with OpenLoop(site.kafka, site.topics) as loop:
        return await loop.run(site.arrivals(times.tolist()))


def measure_backlog(site: Site, capacity: float) -> dict[str, Any]:
    """A worker that finds late requests when it starts, while fresh ones keep coming."""
    return asyncio.run(_backlog(site, capacity))


async def _backlog(site: Site, capacity: float) -> dict[str, Any]:
    fresh = poisson(0.5 * capacity, 2 * site.seconds, site.random)
    late = site.arrivals([-5.0] * BACKLOG)
    async with OpenLoop(site.kafka, site.topics) as loop:
        running = asyncio.create_task(loop.run([*late, *site.arrivals(fresh.tolist())]))
        await asyncio.sleep(3.0)
        manager = site.worker()
        processes = await asyncio.to_thread(manager.__enter__)
        try:
            ready_ms = time.time() * 1000
            answers = await running
            peak_mb = resident_mb(processes.pid("worker"), "VmHWM")
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)
    made_ms = {id(answer): answer.scores.scored_time_ms for answer in answers if answer.scores}
    late_ms = [made_ms[id(answer)] for answer in answers if answer.arrival.due_s < 0 and id(answer) in made_ms]
    after = [a for a in answers if a.arrival.due_s >= 0 and a.scores and a.scores.created_time_ms > ready_ms]
    figures = {
        "late_requests": len(late),
        "late_answered": len(late_ms),
        "seconds_after_ready": (max(late_ms, default=ready_ms) - ready_ms) / 1000,
        "fresh": summary(after),
    }
    return {"figures": figures, "answers": answers, "peak_mb": peak_mb}


def resident_mb(pid: int, field: str) -> float:
    """A process's resident memory now (VmRSS) or at its highest (VmHWM)."""
    lines: Mapping[str, str] = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return int(lines[field].split()[0]) / 1024


if __name__ == "__main__":
    main()
