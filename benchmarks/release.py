"""What does a release cost the requests that come meanwhile?

    python -m benchmarks.release --out out/release.json

One updater and one worker follow a bundle store on real Kafka, at a constant rate (Poisson, open loop). In four runs
another version is made current while requests come: one with the same embeddings, back, one with embeddings of another
space (the updater follows, the worker fills tables of its own), back. A fifth run without a release is what they are
compared with. The worker is pinned to one processor; updater, broker and load generator share another.

Keys of the JSON file:

- `rate`, `budget_ms`, `seconds`, `candidates` (of a request, the mean), `pinned`: the conditions.
- `runs.<run>` for `none`, `same_embeddings`, `same_embeddings_back`, `other_embeddings`, `other_embeddings_back`:
  `requests`, `lost`, `late` (readable after their deadline), `p50_ms`, `p99_ms`, `share_graph`, and but for `none`
  `seconds_until_served` (from the promotion to the first score of the new version), and of the requests due within
  that time alone `meanwhile`: {requests, late, p50_ms, p99_ms, share_graph}.
- `versions_mixed`: scores of a former version made after the first of the next one plus the budget; 0 is right.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.harness import add_broker, add_bundle, bundle_folder, exit_on_error, finish, parser
from benchmarks.overload_figures import BUDGET_MS, Answers, summary
from benchmarks.overload_site import OTHER_CPU, READY_S, WORKER_CPU
from event_data.load import load_log
from loadgen.brokers import open_broker
from loadgen.open_loop import Answer, Arrival, OpenLoop, poisson
from loadgen.plan import Impression, make_plan
from loadgen.player import Player
from loadgen.processes import Processes, Program
from models.bundle import Bundle
from models.bundle_store import BundleStore
from models.golden_check import with_golden
from programs.topics import TopicSettings
from runtime.errors import ExitstreamError
from runtime.kafka import create_missing_topics
from runtime.settings import KafkaSettings

PROMOTED_AT_S: Final = 5.0
CHECK_S: Final = 1.0
Release = Callable[[], str]
"""Makes another version current and tells which."""


@dataclass(frozen=True)
class Run:
    """What became of the requests of one run.

    Attributes:
        answers: in the order of sending.
        version: made current meanwhile; empty if none was.
    """

    answers: Answers
    version: str

    @property
    def served_s(self) -> float | None:
        """When the new version first scored, seconds after the start; None if it never did."""
        times = [_scored_s(answer) for answer in self.answers if self._is_new(answer)]
        return min(times, default=None)

    def figures(self) -> dict[str, Any]:
        """For the JSON file."""
        figures = _shares(self.answers) | {"lost": sum(answer.scores is None for answer in self.answers)}
        if not self.version:
            return figures
        served_s = self.served_s
        end_s = math.inf if served_s is None else served_s
        meanwhile = [answer for answer in self.answers if PROMOTED_AT_S <= answer.arrival.due_s <= end_s]
        seconds = None if served_s is None else served_s - PROMOTED_AT_S
        return figures | {"seconds_until_served": seconds, "meanwhile": _shares(meanwhile)}

    def mixed(self) -> int:
        """Scores of the former version made when the new one had long taken over."""
        if self.served_s is None:
            return 0
        after_s = self.served_s + BUDGET_MS / 1000
        return sum(_scored_s(answer) > after_s and not self._is_new(answer) for answer in self.answers if answer.scores)

    def _is_new(self, answer: Answer) -> bool:
        return answer.scores is not None and answer.scores.model_version == self.version


def main() -> None:
    """Measure, and print the figures."""
    arguments = parser(__doc__ or "")
    add_bundle(arguments)
    add_broker(arguments)
    arguments.add_argument("--seconds", type=float, default=60.0, help="length of each run")
    arguments.add_argument("--rate", type=float, default=50.0, help="requests a second")
    options = arguments.parse_args()
    log = load_log(options.data)
    folder = bundle_folder(options.bundle, log)
    os.sched_setaffinity(0, {OTHER_CPU})
    gc.disable()  # the answers are many objects; a collection's pause would count as the worker's latency
    work = options.out.with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)
    store = BundleStore(work / "store")
    first = _put(store, Bundle.load(folder), work)
    try:
        with open_broker(options.broker, cpus=str(OTHER_CPU)) as bootstrap:
            kafka, topics = KafkaSettings(bootstrap_servers=bootstrap), TopicSettings()
            asyncio.run(create_missing_topics(kafka, topics.specs()))
            pages = make_plan(log, 10**9).impressions
            with Processes(_environment(bootstrap, store, work), work) as processes:
                processes.start(Program("updater", ["updater"], cpus={OTHER_CPU}))
                asyncio.run(Player(kafka, topics, make_plan(log, 1), rate=1.0).prepare(READY_S))
                processes.start(Program("worker", ["worker"], cpus={WORKER_CPU}))
                processes.wait_ready(READY_S)
                runs = asyncio.run(
                    all_runs(OpenLoop(kafka, topics), pages, options, _releases(store, folder, work, first))
                )
    except ExitstreamError as error:
        exit_on_error(error)
    finish(
        {
            "rate": options.rate,
            "budget_ms": BUDGET_MS,
            "seconds": options.seconds,
            "candidates": float(np.mean([len(page.events) for page in pages])),
            "pinned": f"worker on processor {WORKER_CPU}, all others on processor {OTHER_CPU}",
            "runs": {name: run.figures() for name, run in runs.items()},
            "versions_mixed": sum(run.mixed() for run in runs.values()),
        },
        options.out,
    )


async def all_runs(
    opened: OpenLoop, pages: Sequence[Impression], options: argparse.Namespace, releases: Mapping[str, Release]
) -> dict[str, Run]:
    """One run without a release, then one for each."""
    count = round(options.rate * options.seconds)
    due = poisson(count, options.seconds, np.random.default_rng(0)).tolist()
    arrivals = [Arrival(at, pages[number % len(pages)]) for number, at in enumerate(due)]
    runs = {}
    async with opened as loop:
        runs["none"] = Run(await loop.run(arrivals), "")
        for name, release in releases.items():
            running = asyncio.create_task(loop.run(arrivals))
            await asyncio.sleep(PROMOTED_AT_S)
            version = await asyncio.to_thread(release)
            runs[name] = Run(await running, version)
            print({name: runs[name].figures()}, file=sys.stderr)
    return runs


def _releases(store: BundleStore, folder: Path, work: Path, first: str) -> dict[str, Release]:
    """Four promotions; each bundle is in the store before the load begins."""
    bundle = Bundle.load(folder)
    calibration, graph = bundle.calibration, bundle.graph
    scores = replace(bundle, calibration=replace(calibration, intercepts=calibration.intercepts + 0.01))
    space = replace(bundle, graph=replace(graph, item_embeddings=graph.item_embeddings * np.float32(1.01)))
    same = _put(store, with_golden(scores, bundle.golden), work)
    other = _put(store, with_golden(space, bundle.golden), work)
    store.promote(first, by="benchmark")

    def promote(version: str) -> Release:
        def release() -> str:
            store.promote(version, by="benchmark")
            return version

        return release

    return {
        "same_embeddings": promote(same),
        "same_embeddings_back": promote(first),
        "other_embeddings": promote(other),
        "other_embeddings_back": promote(first),
    }


def _put(store: BundleStore, bundle: Bundle, work: Path) -> str:
    """Puts a bundle into the store and makes it current; its version."""
    version = bundle.save(work / "bundle").version
    store.put(work / "bundle")
    store.promote(version, by="benchmark")
    return version


def _environment(bootstrap: str, store: BundleStore, work: Path) -> dict[str, str]:
    return {
        "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "EXITSTREAM_WORKER__BUNDLE": store.address,
        "EXITSTREAM_WORKER__BUNDLE_CHECK_S": str(CHECK_S),
        "EXITSTREAM_WORKER__BUDGET_MS": str(BUDGET_MS),
        "EXITSTREAM_WORKER__REQUEST_LOG": "off",
        "EXITSTREAM_UPDATER__BUNDLE": store.address,
        "EXITSTREAM_UPDATER__BUNDLE_CHECK_S": str(CHECK_S),
        "EXITSTREAM_UPDATER__SNAPSHOTS": str(work / "snapshots"),
    }


def _shares(answers: Answers) -> dict[str, Any]:
    told = summary(answers)
    late = sum(answer.latency_ms is not None and answer.latency_ms > BUDGET_MS for answer in answers)
    return {"requests": len(answers), "late": late} | {name: told[name] for name in ("p50_ms", "p99_ms", "share_graph")}


def _scored_s(answer: Answer) -> float:
    """When it was scored, seconds after the start; never if it was not."""
    if answer.scores is None:
        return math.inf
    return answer.arrival.due_s + (answer.scores.scored_time_ms - answer.scores.created_time_ms) / 1000


if __name__ == "__main__":
    main()
