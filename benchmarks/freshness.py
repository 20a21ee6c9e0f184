"""How fresh are the embeddings that a worker serves, and how many interactions a second can be kept up with?

Through real Kafka, updater and worker together, on the machine's CPUs shared by all of them and the generator:
interactions are sent at a steady rate, each dated the moment it is sent; the worker measures how long it takes until
the state that includes the interaction can be served. A rate counts as kept up with if the updater is less than a
second behind when the sending ends, and the worker's median freshness is below a second.

    python -m benchmarks.freshness --data ../shared/datasets/ml-100k --out out/freshness.json

No interaction repeats an earlier one: see `endless`. Keys of the JSON file: `data`, `sustained_events_per_second` (the
most that was kept up with), `interactions_sent`, and `rates`, for each `rate`: `events_per_second`, `behind_s`,
`kept_up`, `published_p50_ms`, `published_p99_ms` (event time until the updater has published it), `freshness_p50_ms`,
`freshness_p99_ms` (until the worker can serve it), `updater_cpus`, `worker_cpus`.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import Producer
from matplotlib import pyplot as plt
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.harness import add_broker, add_bundle, bundle_folder, exit_on_error, finish, parser
from event_data.event_log import EventLog
from event_data.load import load_log
from loadgen.brokers import open_broker
from loadgen.processes import Processes, Program
from programs.topics import TopicSettings
from runtime.errors import ExitstreamError
from runtime.kafka import create_missing_topics
from runtime.observability.distribution import bucket_quantile
from runtime.settings import KafkaSettings
from schemas.codec import encode, headers_for
from schemas.messages import Interaction, Item

RATES: Final = (1_000, 5_000, 10_000, 15_000, 20_000, 30_000)
WARM_UP_S: Final = 3.0
TICK_S: Final = 0.005
KEPT_UP_S: Final = 1.0
PATIENCE_S: Final = 120.0
_UPDATER: Final = "exitstream_updater_"
_WORKER: Final = "exitstream_worker_"


def main() -> None:
    """Run it from the command line."""
    arguments = parser(__doc__ or "")
    add_bundle(arguments)
    add_broker(arguments)
    arguments.add_argument("--seconds", type=float, default=15.0, help="length of measuring at each rate")
    arguments.add_argument("--rates", type=int, nargs="+", default=RATES, help="interactions per second")
    options = arguments.parse_args()
    try:
        log = load_log(options.data)
        bundle = bundle_folder(options.bundle, log)
        with open_broker(options.broker) as bootstrap, tempfile.TemporaryDirectory() as folder:
            rows, sent = measure(log, bundle, bootstrap, Path(folder), options.rates, options.seconds)
    except ExitstreamError as error:
        exit_on_error(error)
    kept_up = [row["events_per_second"] for row in rows if row["kept_up"]]
    figures = {
        "data": log.name,
        "sustained_events_per_second": max(kept_up, default=0.0),
        "interactions_sent": sent,
        "rates": rows,
    }
    draw(rows, options.out.with_suffix(".png"))
    finish(figures, options.out)


def measure(
    log: EventLog, bundle: Path, bootstrap: str, folder: Path, rates: Sequence[int], seconds: float
) -> tuple[list[dict[str, Any]], int]:
    """Both programs from an empty state, then one rate after the other.

    Returns:
        a row of figures for each rate, and how many interactions were sent in all.
    """
    topics = TopicSettings()
    asyncio.run(create_missing_topics(KafkaSettings(bootstrap_servers=bootstrap), topics.specs()))
    feed = Feed(bootstrap, topics, log)
    environment = {
        "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "EXITSTREAM_UPDATER__BUNDLE": str(bundle),
        "EXITSTREAM_WORKER__BUNDLE": str(bundle),
        "EXITSTREAM_UPDATER__SNAPSHOTS": str(folder / "snapshots"),
    }
    with Processes(environment, folder / "logs") as processes:
        feed.send_catalogue()
        processes.start(Program("updater", ["updater"]))
        processes.start(Program("worker", ["worker"]))
        processes.wait_ready(PATIENCE_S)
        rows = []
        for rate in rates:
            rows.append(_measure_rate(processes, feed, rate, seconds))
            sys.stderr.write(json.dumps(rows[-1]) + "\n")
            if not rows[-1]["kept_up"]:
                break
        processes.check()
    return rows, feed.sent


def _measure_rate(processes: Processes, feed: Feed, rate: int, seconds: float) -> dict[str, Any]:
    feed.send(rate, WARM_UP_S)
    before = Reading.of(processes)
    started = time.monotonic()
    sent = feed.send(rate, seconds)
    sending_s = time.monotonic() - started
    behind_s = _wait_until_applied(processes, feed.sent)
    after = Reading.of(processes)
    published, servable = after.updater.freshness_since(before.updater), after.worker.freshness_since(before.worker)
    row = {
        "rate": rate,
        "events_per_second": sent / (sending_s + behind_s),
        "behind_s": behind_s,
        "published_p50_ms": 1_000 * bucket_quantile(published, 0.5),
        "published_p99_ms": 1_000 * bucket_quantile(published, 0.99),
        "freshness_p50_ms": 1_000 * bucket_quantile(servable, 0.5),
        "freshness_p99_ms": 1_000 * bucket_quantile(servable, 0.99),
        "updater_cpus": (after.updater.cpu_s - before.updater.cpu_s) / (after.at - before.at),
        "worker_cpus": (after.worker.cpu_s - before.worker.cpu_s) / (after.at - before.at),
    }
    return row | {"kept_up": behind_s < KEPT_UP_S and row["freshness_p50_ms"] < 1_000 * KEPT_UP_S}


def _wait_until_applied(processes: Processes, sent: int) -> float:
    """Seconds until the updater has applied all interactions ever sent; then time for the last to reach the worker."""
    started = time.monotonic()
    while Page.of(processes.metrics("updater"), _UPDATER).interactions < sent:
        if time.monotonic() - started > PATIENCE_S:
            raise ExitstreamError(f"the updater did not apply {sent} interactions within {PATIENCE_S:.0f} s")
        time.sleep(0.02)
    behind_s = time.monotonic() - started
    time.sleep(1.0)
    return behind_s


def endless(interactions: Sequence[Interaction], random: random.Random) -> Iterator[Interaction]:
    """The interactions in random order, then again and again as those of new users: the same distribution, no repeats.

    The second round's users are other people who behave as those of the first; items stay, so the catalogue's graph
    keeps growing by new edges. Event ids are new in every round; event times are the sender's to set. Each round begins
    at another place of the one random order: shuffling again would stop the sender for tens of milliseconds.
    """
    order = random.sample(interactions, len(interactions))
    for cohort in count():
        begin = random.randrange(len(order))
        for event in chain(order[begin:], order[:begin]):
            again = {"user_id": f"{event.user_id}~{cohort}"} if cohort else {}
            yield msgspec.structs.replace(event, event_id=f"{cohort}:{event.event_id}", **again)


class Feed:
    """Sends interactions like a data set's at a steady rate, each dated when it is sent.

    By librdkafka, which takes a tenth of the CPU time of a Python client: more is left for what is measured.

    Args:
        bootstrap: where Kafka is.
        topics: their names.
        log: the data set; sent in random order, as thousands of users at once would. One user's whole session within
            milliseconds would be a single state to publish, and flatter the figures.
    """

    def __init__(self, bootstrap: str, topics: TopicSettings, log: EventLog) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "enable.idempotence": True})
        self._topics = topics
        self._items = log.items
        self._events = endless(log.interactions, random.Random(0))
        self._headers = headers_for("msgpack")
        self.sent = 0

    def send_catalogue(self) -> None:
        """All items."""
        for item in self._items:
            self._produce(self._topics.items, item.item_id, item)
        self._producer.flush()

    def send(self, rate: int, seconds: float) -> int:
        """Send at `rate` interactions per second; returns how many were sent."""
        started, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - started) < seconds:
            due = int(elapsed * rate)
            for event in self._dated(due - sent):
                self._produce(self._topics.interactions, event.user_id, event)
            sent = due
            self._producer.poll(0)
            time.sleep(TICK_S)
        self._producer.flush()
        self.sent += sent
        return sent

    def _dated(self, number: int) -> Iterator[Interaction]:
        now_ms = time.time_ns() // 1_000_000
        for event in islice(self._events, number):
            yield msgspec.structs.replace(event, event_time_ms=now_ms)

    def _produce(self, topic: str, key: str, message: Interaction | Item) -> None:
        self._producer.produce(topic, key=key, value=encode(message), headers=self._headers)


@dataclass(frozen=True)
class Page:
    """The figures on a program's /metrics page."""

    interactions: float
    cpu_s: float
    freshness: Mapping[float, float]

    @classmethod
    def of(cls, text: str, prefix: str) -> Page:
        """Parse Prometheus' text format."""
        values: dict[str, float] = {}
        buckets: dict[float, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == f"{prefix}freshness_seconds_bucket":
                    buckets[float(sample.labels["le"])] = sample.value
                elif not sample.labels:
                    values[sample.name] = sample.value
        return cls(values.get(f"{prefix}interactions_total", 0.0), values["process_cpu_seconds_total"], buckets)

    def freshness_since(self, earlier: Page) -> dict[float, float]:
        """The cumulative histogram of what was measured after `earlier`."""
        return {bound: count - earlier.freshness[bound] for bound, count in self.freshness.items()}


@dataclass(frozen=True)
class Reading:
    """Both programs' pages at one time."""

    at: float
    updater: Page
    worker: Page

    @classmethod
    def of(cls, processes: Processes) -> Reading:
        """As they are now."""
        return cls(
            time.monotonic(),
            Page.of(processes.metrics("updater"), _UPDATER),
            Page.of(processes.metrics("worker"), _WORKER),
        )


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Freshness against the rate."""
    figure, axes = plt.subplots(figsize=(7, 4))
    rates = [row["rate"] for row in rows]
    for name, style in (("freshness_p99_ms", "-o"), ("freshness_p50_ms", "-s"), ("published_p99_ms", "--o")):
        axes.plot(rates, [row[name] for row in rows], style, label=name.removesuffix("_ms").replace("_", " "))
    axes.axhline(250, linestyle=":", color="grey", label="goal for p99 at 5,000/s")
    axes.set(xlabel="interactions per second", ylabel="ms from event to servable", xscale="log", yscale="log")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
