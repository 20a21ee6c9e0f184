"""Where `benchmarks.overload` measures: a Kafka with published states, a fixed set of pages, and a pinned worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.overload_figures import BUDGET_MS, whole_passes
from loadgen.open_loop import Arrival, poisson
from loadgen.plan import Impression
from loadgen.player import Player
from loadgen.processes import Processes, Program
from programs.topics import TopicSettings
from runtime.kafka import create_missing_topics
from runtime.settings import KafkaSettings
from worker.engine.settings import Precision

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
    """The fixed set that every level scores."""
    folder: Path
    seconds: float
    loads: Sequence[float]
    budget_ms: int = BUDGET_MS
    precision: Precision = "float32"

    def arrivals(self, times: Sequence[float], budget_ms: int | None = None) -> list[Arrival]:
        """Requests at these times, pages taken in turn."""
        return [Arrival(float(due), self.pages[n % len(self.pages)], budget_ms) for n, due in enumerate(times)]

    def level(self, rate: float) -> list[Arrival]:
        """Whole passes over the pages at this rate; the same arrivals for every worker."""
        count = whole_passes(rate * self.seconds, len(self.pages)) * len(self.pages)
        return self.arrivals(poisson(count, count / rate, np.random.default_rng(0)).tolist())

    @contextmanager
    def worker(self, **controller: float) -> Iterator[Processes]:
        """A ready worker with these controller settings, the others as shipped."""
        environment = {
            "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "EXITSTREAM_WORKER__BUNDLE": str(self.bundle),
            "EXITSTREAM_WORKER__BUDGET_MS": str(self.budget_ms),
            "EXITSTREAM_WORKER__ENGINE__PRECISION": self.precision,
            "EXITSTREAM_WORKER__REQUEST_LOG": "off",
            **{f"EXITSTREAM_WORKER__CONTROLLER__{key.upper()}": str(value) for key, value in controller.items()},
        }
        with Processes(environment, self.folder) as processes:
            processes.start(Program("worker", ["worker"], cpus={WORKER_CPU}))
            processes.wait_ready(READY_S)
            yield processes


def publish_states(site: Site, player: Player) -> None:
    """Send the history and let an updater publish the states; the workers need only those."""
    environment = {
        "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": site.kafka.bootstrap_servers,
        "EXITSTREAM_UPDATER__BUNDLE": str(site.bundle),
        "EXITSTREAM_UPDATER__SNAPSHOTS": str(site.folder / f"snapshots-{time.time_ns()}"),
    }
    asyncio.run(create_missing_topics(site.kafka, site.topics.specs()))
    with Processes(environment, site.folder) as processes:
        processes.start(Program("updater", ["updater"]))
        asyncio.run(player.prepare(READY_S))


def resident_mb(pid: int, field: str) -> float:
    """A process's resident memory now (VmRSS) or at its highest (VmHWM)."""
    lines: Mapping[str, str] = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return int(lines[field].split()[0]) / 1024
