"""Are the promises kept for an hour while something breaks every twenty seconds?

    python -m benchmarks.soak --data ../shared/datasets/ml-100k --minutes 60 --out out/soak.json

Kafka in a container, two updaters, and two workers per delivery mode, whose groups read the same requests; a steady
load of pages and of the events on them; and every 20 s a random fault (seeded: `--seed`): a worker or updater killed,
terminated or frozen beyond its session, a further worker that joins and leaves, the broker paused or restarted, the
network cut, poisoned records; in a run of half an hour or more also, once, the broker paused for three minutes. One
worker per mode and one updater are only ever failed by broker and network: their growth is measured. A program that
ends of itself is started again, and told of in the figures.

The run begins once the history has been published and every program is ready; it ends when every request is answered,
or after two minutes' patience. The figures so far are written every minute. An interrupted run leaves nothing behind.

Keys of the JSON file:

- `minutes`, `seed`, `rate` (requests per second): the conditions; `requests`, `interactions`: how many were sent.
- `lost`: requests without an answer in a mode, over both modes. `duplicates`: by mode, answers beyond the first;
  `transactions_lost`: how often a broker took back what it had confirmed, after which exactly once is not promised.
- `delivery`: by mode `answered`, `lost`, `duplicates`; latency from a request's creation until its scores were read,
  as `p50_ms` and `p99_ms`, of the `undisturbed` requests that were created outside of every fault and its recovery.
- `p99_ms`: by mode, the same.
- `faults`: list of `kind`, `target`, `at_s`, `lasted_s`, and `recovery_s`: from when the broker was back or the process
  started again until a burst of fresh requests of many users was answered in both modes; null if that never came.
- `recovery_seconds_max`: the longest of these; null if one never came.
- `rss_slope_mb_per_hour`, `fd_slope_per_hour`: by program, growth of memory and of open descriptors, by least squares
  over the samples of each process that lived through half of the run or more, its first quarter left out; `rss_mb`: the
  memory at the end.
- `ended_by_themselves`: programs that ended without having been asked to: how, and when.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from docker.errors import DockerException

from benchmarks.harness import add_bundle, bundle_folder, exit_on_error, finish, parser
from benchmarks.soak_faults import FAULTS, LONG_FAULTS, STEADY, TARGET, Ground, until_ready
from benchmarks.soak_figures import Fault, Sample, delivery, longest_recovery, of_all, slopes
from event_data.event_log import EventLog
from event_data.load import load_log
from loadgen.fault_site import MODES, FaultSite, transactions_lost
from loadgen.kafka_cluster import KafkaCluster
from loadgen.plan import make_plan
from loadgen.player import Player
from loadgen.processes import Processes
from loadgen.traffic import Traffic
from programs.topics import TopicSettings
from runtime.clock import SystemClock
from runtime.errors import ExitstreamError

FAULT_INTERVAL_S: Final = 20.0
FIRST_FAULT_S: Final = 10.0
USUAL: Final = tuple(f"{kind}-{role}" for kind in (*MODES, "updater") for role in (STEADY, TARGET))
"""The programs of an installation that is whole."""
LONG_RUN_MINUTES: Final = 30.0
"""A run from which on the long faults happen, once each."""
LOGS: Final = "logs"
LINE_INTERVAL_S: Final = 10.0
SAMPLE_INTERVAL_S: Final = 2.0
WRITE_INTERVAL_S: Final = 60.0
HISTORY_PATIENCE_S: Final = 600.0
START_PATIENCE_S: Final = 180.0
PATIENCE_S: Final = 120.0
"""How long to wait for a recovery, and for the last answers."""
SETTLE_S: Final = 3.0
"""How long to listen for duplicates after the last answer."""
BURST: Final = 16
"""Fresh requests that show a recovery: of so many users that every partition gets some."""


@dataclass
class Soak:
    """One run: its conditions, and what was observed so far."""

    ground: Ground
    minutes: float
    rate: float
    seed: int
    started_s: float = field(default_factory=time.monotonic)
    started_ms: float = field(default_factory=lambda: time.time() * 1000)
    faults: list[Fault] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Since the start of the load."""
        return time.monotonic() - self.started_s

    def figures(self) -> dict[str, Any]:
        """The JSON file."""
        modes = delivery(self.ground.traffic.ledger, self.faults)
        grown = slopes(self.samples, self.seconds)
        return {
            "minutes": round(self.seconds / 60, 1),
            "seed": self.seed,
            "rate": self.rate,
            "requests": self.ground.traffic.ledger.sent,
            "interactions": self.ground.traffic.interactions,
            "lost": sum(of_all(modes, "lost").values()),
            "duplicates": of_all(modes, "duplicates"),
            "transactions_lost": transactions_lost(self.ground.site.folder / LOGS),
            "delivery": modes,
            "p99_ms": of_all(modes, "p99_ms"),
            "faults": [fault.row(self.started_ms) for fault in self.faults],
            "recovery_seconds_max": longest_recovery(self.faults),
            "rss_slope_mb_per_hour": of_all(grown, "rss_slope_mb_per_hour"),
            "fd_slope_per_hour": of_all(grown, "fd_slope_per_hour"),
            "rss_mb": of_all(grown, "rss_mb"),
            "ended_by_themselves": self.ended,
        }

    def line(self) -> str:
        """How it stands, in one line."""
        ledger = self.ground.traffic.ledger
        waiting = {mode: len(ledger.missing(mode)) for mode in MODES}
        twice = {mode: ledger.duplicates(mode) for mode in MODES}
        last = f"; last: {self.faults[-1].row(self.started_ms)}" if self.faults else ""
        return (
            f"{self.seconds:6.0f} s  {ledger.sent} requests, unanswered {waiting}, duplicates {twice}, "
            f"{len(self.faults)} faults, {len(self.ended)} ended by themselves{last}"
        )


def main() -> None:
    """Run it and print the figures."""
    arguments = parser(__doc__ or "")
    add_bundle(arguments)
    arguments.add_argument("--minutes", type=float, default=60.0, help="length of the run")
    arguments.add_argument("--rate", type=float, default=10.0, help="requests per second")
    arguments.add_argument("--seed", type=int, default=0, help="of the faults: which, in which order, and of whom")
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to end, it stops what it started, as on Ctrl-C
    log = load_log(options.data)
    try:
        with KafkaCluster() as cluster:
            topics = TopicSettings()
            site = FaultSite(cluster, bundle_folder(options.bundle, log), options.out.with_suffix(".run"), topics)
            figures = asyncio.run(run(site, log, options))
    except KeyboardInterrupt:
        sys.exit("interrupted; every program and container was stopped")
    except ExitstreamError as error:
        exit_on_error(error)
    finish(figures, options.out)


async def run(site: FaultSite, log: EventLog, options: Any) -> dict[str, Any]:  # noqa: ANN401 - argparse's namespace
    """Everything from the topics to the figures; stops every program at the end, whatever happens."""
    await site.create_topics()
    run_folder = site.folder / f"{time.time_ns()}"  # an earlier run's snapshots belong to a broker that is gone
    site = FaultSite(site.cluster, site.bundle, run_folder, site.topics, site.more)
    pages = make_plan(log, 10**9).impressions
    with Processes({}, run_folder / LOGS) as processes:
        async with Traffic(site.destination, pages) as traffic:
            ground = Ground(site, processes, traffic, random.Random(options.seed), SystemClock())
            await prepare(ground, log)
            soak = Soak(ground, options.minutes, options.rate, options.seed)
            await soak_for(soak, options.out)
            await asyncio.to_thread(processes.stop)
            return soak.figures()


async def prepare(ground: Ground, log: EventLog) -> None:
    """Start everything, publish the history, and wait until all are ready."""
    print("publishing the history", flush=True)
    for role in (STEADY, TARGET):
        await ground.start(f"updater-{role}")
    player = Player(ground.site.kafka, ground.site.topics, make_plan(log, 1), rate=1.0)
    await player.prepare(HISTORY_PATIENCE_S)
    print("starting the workers", flush=True)
    for name in USUAL:
        if not ground.processes.is_running(name):
            await ground.start(name)
    await asyncio.to_thread(ground.processes.wait_ready, START_PATIENCE_S)


async def soak_for(soak: Soak, out: Path) -> None:
    """Load and faults for the minutes asked for, then wait for the last answers."""
    stopping = asyncio.Event()
    traffic = soak.ground.traffic
    async with asyncio.TaskGroup() as tasks:
        beside = [
            tasks.create_task(supervise(soak)),
            tasks.create_task(sample(soak)),
            tasks.create_task(report(soak, out)),
        ]
        sending = tasks.create_task(traffic.run(soak.rate, stopping))
        await disturb(soak)
        stopping.set()
        await sending
        await answered(soak, range(traffic.ledger.sent))
        await asyncio.sleep(SETTLE_S)
        for task in beside:
            task.cancel()
    print(soak.line(), flush=True)


async def disturb(soak: Soak) -> None:
    """A fault every twenty seconds: all kinds in random order, then all again; returns when the time is over."""
    end_s = 60.0 * soak.minutes
    due_s = FIRST_FAULT_S
    deck: list[str] = []
    while due_s < end_s - FAULT_INTERVAL_S:
        await asyncio.sleep(max(0.0, due_s - soak.seconds))
        if not deck:
            deck = shuffled(soak.ground.random, with_long=not soak.faults and soak.minutes >= LONG_RUN_MINUTES)
        soak.faults.append(await one_fault(soak, deck.pop()))
        due_s += FAULT_INTERVAL_S * max(1, -(-(soak.seconds - due_s) // FAULT_INTERVAL_S))
    await asyncio.sleep(max(0.0, end_s - soak.seconds))


def shuffled(random_: random.Random, *, with_long: bool) -> list[str]:
    """Every kind of fault once, in random order."""
    deck = [*FAULTS, *(LONG_FAULTS if with_long else ())]
    random_.shuffle(deck)
    return deck


async def one_fault(soak: Soak, kind: str) -> Fault:
    """Put a fault in, and measure how long it takes until all is well again."""
    began_ms = time.time() * 1000
    try:
        target = await {**FAULTS, **LONG_FAULTS}[kind](soak.ground)
    except (TimeoutError, ExitstreamError, DockerException) as error:
        print(f"{kind}: {error!r}", flush=True)  # the run goes on: this fault counts as one without recovery
        return Fault(kind, "?", began_ms, time.time() * 1000, None)
    ended_ms, ended_s = time.time() * 1000, time.monotonic()
    recovered = await answered(soak, await soak.ground.traffic.burst(BURST))
    recovery_s = time.monotonic() - ended_s if recovered else None
    await all_ready(soak)
    return Fault(kind, target, began_ms, ended_ms, recovery_s)


async def all_ready(soak: Soak) -> None:
    """Wait until every program is ready: the next fault meets a whole installation."""
    try:
        await until_ready(soak.ground, *USUAL)
    except TimeoutError:
        print("not every program is ready; the run goes on", flush=True)


async def answered(soak: Soak, numbers: range) -> bool:
    """Wait until these requests are answered in both modes; whether they were before patience ended."""
    give_up_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_s:
        if soak.ground.traffic.ledger.all_answered(numbers):
            return True
        await asyncio.sleep(0.05)
    return False


async def supervise(soak: Soak) -> None:
    """Start again what ends of itself, as a supervisor in production would."""
    while True:
        soak.ground.traffic.check()
        for name, how in soak.ground.processes.ended().items():
            soak.ended.append(f"at {soak.seconds:.0f} s: {how}")
            await soak.ground.start(name)
        await asyncio.sleep(1.0)


async def sample(soak: Soak) -> None:
    """Note the sizes of all steady programs from time to time."""
    names = [f"{kind}-{STEADY}" for kind in (*MODES, "updater")]
    while True:
        for name in names:
            pid = soak.ground.processes.pid(name)
            found = size_of(pid)
            if found is not None:
                soak.samples.append(Sample(name, pid, soak.seconds, *found))
        await asyncio.sleep(SAMPLE_INTERVAL_S)


async def report(soak: Soak, out: Path) -> None:
    """Print a line every ten seconds; write the figures so far every minute."""
    written_s = 0.0
    while True:
        await asyncio.sleep(LINE_INTERVAL_S)
        print(soak.line(), flush=True)
        if soak.seconds - written_s >= WRITE_INTERVAL_S:
            written_s = soak.seconds
            await asyncio.to_thread(write, soak.figures(), out)


def write(figures: dict[str, Any], out: Path) -> None:
    """Write the figures so far."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures) + "\n")


def size_of(pid: int) -> tuple[float, int] | None:
    """Resident memory in MB and number of open descriptors of a process; None if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return None
    resident = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")), None)
    return None if resident is None else (int(resident) / 1024, descriptors)


if __name__ == "__main__":
    main()
