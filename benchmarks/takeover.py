"""What do requests notice when a worker leaves its group and another takes its place?

    python -m benchmarks.takeover --users 400000 --out out/takeover.json

Two workers share the requests of as many users as are asked for (`benchmarks.scale_population`) on real Kafka, at a
constant rate (Poisson, open loop). One of them is asked to end, and later started again. Four ways to hold users are
compared: `all` (every worker holds every user), `assigned` (those of its own partitions), `standby` (those, and as many
partitions warm as it owns), and `saved` (the same, with tables that each worker keeps on disk).

Keys of the JSON file:

- `users`, `items`, `partitions`, `rate`, `candidates`, `budget_ms`: the conditions.
- `runs.<way>` for `all`, `assigned`, `standby`, `saved`:
  - `memory_mb`: resident memory of the second worker, which never held more, beyond that of a worker beside empty
    topics (`memory_mb_without_states`).
  - `users_held`: by the two workers together; `states_applied` by the one that stays, until the end.
  - `leaves`, `comes`: for the requests due within ten seconds of the one or the other: `requests`, `lost`, `late`,
    `p99_ms`, `without_user` (answers that say that their user's state had not been read), `graph` (candidates answered
    by the graph).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
import urllib.error
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.harness import add_broker, add_bundle, bundle_folder, exit_on_error, finish, parser
from benchmarks.overload_site import resident_mb
from benchmarks.scale_population import Population
from benchmarks.scale_restart import publish
from event_data.load import load_log
from loadgen.brokers import open_broker
from loadgen.open_loop import Answer, Arrival, OpenLoop, poisson
from loadgen.plan import Impression
from loadgen.processes import Processes, Program
from loadgen.worker_metrics import PREFIX
from models.bundle import Bundle
from programs.topics import TopicSettings
from runtime.errors import ExitstreamError
from runtime.kafka import create_missing_topics
from runtime.settings import KafkaSettings
from schemas.messages import Interaction

BUDGET_MS: Final = 500
CANDIDATES: Final = 8
WINDOW_S: Final = 10.0
"""Requests due so soon after a change are those that notice it."""
LEAVES_AT_S: Final = 5.0
READY_S: Final = 600.0
DRAIN_S: Final = 30.0
WORKERS: Final = ("first", "second")
Answers = Sequence[Answer]
_TABLES: Final = "EXITSTREAM_WORKER__TABLES__"


def main() -> None:
    """Measure, and print the figures."""
    arguments = parser(__doc__ or "")
    add_bundle(arguments)
    add_broker(arguments)
    arguments.add_argument("--users", type=int, default=400_000)
    arguments.add_argument("--items", type=int, default=20_000)
    arguments.add_argument("--rate", type=float, default=20.0, help="requests a second")
    given = arguments.parse_args()
    try:
        bundle = bundle_folder(given.bundle, load_log(given.data))
        loaded = Bundle.load(bundle)
        population = Population(given.users, given.items, dim=min(64, loaded.graph.dim), space=loaded.space)
        topics = TopicSettings()
        with open_broker(given.broker) as bootstrap, tempfile.TemporaryDirectory() as folder:
            kafka = KafkaSettings(bootstrap_servers=bootstrap)
            asyncio.run(create_missing_topics(kafka, topics.specs()))
            site = _Site(kafka, topics, bundle, Path(folder), given)
            empty_mb = site.memory_without_states()
            asyncio.run(publish(kafka, topics, population))
            standby = {"USERS": "assigned", "STANDBY_PARTITIONS": str(topics.partitions // 2)}
            runs = {
                "all": site.run({}),
                "assigned": site.run({"USERS": "assigned"}),
                "standby": site.run(standby),
                "saved": site.run(standby, saved=True),
            }
    except ExitstreamError as error:
        exit_on_error(error)
    finish(
        {
            "users": given.users,
            "items": given.items,
            "partitions": topics.partitions,
            "rate": given.rate,
            "candidates": CANDIDATES,
            "budget_ms": BUDGET_MS,
            "memory_mb_without_states": empty_mb,
            "runs": {name: run | {"memory_mb": run["memory_mb"] - empty_mb} for name, run in runs.items()},
        },
        given.out,
    )


class _Site:
    def __init__(
        self, kafka: KafkaSettings, topics: TopicSettings, bundle: Path, folder: Path, given: argparse.Namespace
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._bundle = bundle
        self._folder = folder
        self._given = given
        self._runs = 0

    def memory_without_states(self) -> float:
        """Of a worker that is ready, in MB."""
        with self._processes({}) as processes:
            processes.start(Program("first", ["worker"]))
            processes.wait_ready(READY_S)
            return resident_mb(processes.pid("first"), "VmRSS")

    def run(self, tables: dict[str, str], *, saved: bool = False) -> dict[str, Any]:
        """One way to hold users."""
        programs = [
            Program(name, ["worker"], {f"{_TABLES}SAVED": str(self._folder / "tables" / name)} if saved else {})
            for name in WORKERS
        ]
        with self._processes(tables) as processes:
            for program in programs:
                processes.start(program)
                processes.wait_ready(READY_S)
            held = self._settled(processes)
            memory_mb = resident_mb(processes.pid("second"), "VmRSS")
            answers, comes_at_s = asyncio.run(self._traffic(processes, programs[1]))
            applied = _metric(processes, "first", "states_total", topic=self._topics.user_states)
        return {
            "memory_mb": memory_mb,
            "users_held": held,
            "states_applied": applied,
            "leaves": _noticed(answers, LEAVES_AT_S),
            "comes": _noticed(answers, comes_at_s),
        }

    def _settled(self, processes: Processes) -> float:
        """The users held by both workers, once none is leaving any more."""
        while True:
            held = [_metric(processes, name, "table_entries", kind="user") for name in WORKERS]
            time.sleep(1)
            if held == [_metric(processes, name, "table_entries", kind="user") for name in WORKERS]:
                return sum(held)

    async def _traffic(self, processes: Processes, second: Program) -> tuple[Answers, float]:
        """Requests while the second worker ends and is started again; when the new one joined, in seconds."""
        seconds = LEAVES_AT_S + 4 * WINDOW_S
        random = np.random.default_rng(self._runs)
        due = poisson(round(self._given.rate * seconds), seconds, random).tolist()
        arrivals = [Arrival(at, self._page(number, random), BUDGET_MS) for number, at in enumerate(due)]
        loop_time = asyncio.get_running_loop().time
        async with OpenLoop(self._kafka, self._topics) as loop:
            began_s = loop_time()
            running = asyncio.create_task(loop.run(arrivals))
            await asyncio.sleep(LEAVES_AT_S)
            await asyncio.to_thread(processes.drain, "second", DRAIN_S)
            await asyncio.sleep(WINDOW_S)
            processes.start(second)
            await asyncio.to_thread(_wait_until_joined, processes, "second")
            joined_s = loop_time() - began_s
            return await running, joined_s

    def _page(self, number: int, random: np.random.Generator) -> Impression:
        user = f"user-{random.integers(self._given.users):010d}"
        items = random.choice(self._given.items, CANDIDATES, replace=False).tolist()
        events = [
            Interaction(
                event_id=f"{number}-{item}",
                user_id=user,
                item_id=f"item-{item:08d}",
                kind="impression",
                event_time_ms=0,
                positive=False,
            )
            for item in items
        ]
        return Impression(request_id=f"page-{number}", user_id=user, events=events)

    def _processes(self, tables: dict[str, str]) -> Processes:
        self._runs += 1
        environment = {
            "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": self._kafka.bootstrap_servers,
            "EXITSTREAM_WORKER__BUNDLE": str(self._bundle),
            "EXITSTREAM_WORKER__GROUP_ID": f"takeover-{self._runs}",
            "EXITSTREAM_WORKER__REQUEST_LOG": "off",
            **{f"{_TABLES}{name}": value for name, value in tables.items()},
        }
        return Processes(environment, self._folder / f"logs-{self._runs}")


def _noticed(answers: Answers, since_s: float) -> dict[str, float]:
    """What became of the requests due within the window."""
    window = [answer for answer in answers if since_s <= answer.arrival.due_s < since_s + WINDOW_S]
    records = [answer.scores for answer in window if answer.scores is not None]
    latencies = [answer.latency_ms for answer in window if answer.latency_ms is not None]
    scores = [score for record in records for score in record.scores]
    return {
        "requests": len(window),
        "lost": len(window) - len(records),
        "late": sum(latency > BUDGET_MS for latency in latencies),
        "p99_ms": float(np.percentile(latencies or [np.nan], 99)),
        "without_user": sum(not record.user_state_read for record in records),
        "graph": sum(score.made_by == "graph" for score in scores) / max(1, len(scores)),
    }


def _wait_until_joined(processes: Processes, name: str) -> None:
    """Returns once a worker has been given partitions of its own."""
    give_up_s = time.monotonic() + READY_S
    while not processes.is_ready(name) and time.monotonic() < give_up_s:
        with suppress(urllib.error.URLError):  # it has only begun
            if _metric(processes, name, "user_partitions", kind="assigned") > 0:
                return
        time.sleep(0.1)


def _metric(processes: Processes, name: str, metric: str, **labels: str) -> float:
    for family in text_string_to_metric_families(processes.metrics(name)):
        for sample in family.samples:
            if sample.name == f"{PREFIX}{metric}" and labels.items() <= sample.labels.items():
                return float(sample.value)
    return 0.0


if __name__ == "__main__":
    main()
