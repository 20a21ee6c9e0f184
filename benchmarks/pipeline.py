"""What does the worker's pipeline cost beside a bare loop that only copies records?

    python -m benchmarks.pipeline --out out/pipeline.json

Both read the same impression requests from a real Kafka and write records of the same bytes to the scores' topic.

- The pipeline is the worker's own (`worker.pipeline`, `worker.reading`, `runtime.delivery`) with everything in it:
  decoding, deadlines, the queue between event loop and compute thread, score records, metrics, request log, offsets,
  commits. Only the model is a stub: every candidate has a rate at once (`benchmarks.pipeline_stub`).
- The bare loop is aiokafka's consumer and producer, as its documentation shows them (`benchmarks.pipeline_raw`).

The producers have the same settings, offsets are committed at the same intervals; exactly once, both put many records
and their offsets into a transaction. Rounds alternate between the contestants, each with a new group over the same
records; medians are compared. The program is pinned to one processor, the broker to another. A round is timed from
when the group has its partitions until the last offset is committed.

Keys of the JSON file:

- `pipeline_records_per_second`, `raw_records_per_second`, `exactly_once_pipeline_records_per_second`,
  `exactly_once_raw_records_per_second`: medians of the rounds.
- `pipeline_to_raw`, `exactly_once_pipeline_to_raw`: their ratios.
- `rounds`: all rates, by contestant.
- `records`, `candidates`, `request_bytes`, `score_bytes`, `pinned`: the conditions.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeVar

import structlog
import uvloop

from benchmarks import pipeline_raw, pipeline_stub
from benchmarks.harness import add_broker, exit_on_error, finish, parser
from benchmarks.overload_site import OTHER_CPU, WORKER_CPU
from loadgen.brokers import open_broker
from programs.topics import TopicSettings
from runtime.errors import ExitstreamError
from runtime.kafka import RecordSink, create_missing_topics
from runtime.records import OutRecord
from runtime.settings import DeliveryMode, KafkaSettings
from schemas.codec import encode, headers_for
from schemas.messages import ImpressionRequest
from worker.app import SWITCH_INTERVAL_S

Result = TypeVar("Result")
USERS: Final = 1_000
Contestant = Callable[[KafkaSettings, TopicSettings, str, int, bytes], Coroutine[Any, Any, float]]
CONTESTANTS: Final[Mapping[str, tuple[Contestant, DeliveryMode]]] = {
    "pipeline": (pipeline_stub.run, "at_least_once"),
    "raw": (pipeline_raw.at_least_once, "at_least_once"),
    "exactly_once_pipeline": (pipeline_stub.run, "exactly_once"),
    "exactly_once_raw": (pipeline_raw.exactly_once, "exactly_once"),
}
"""Each takes settings, topics, a group, the number of records and what a score record holds; returns the seconds that
they took.
"""


def main() -> None:
    """Measure, print the figures."""
    arguments = parser(__doc__ or "")
    add_broker(arguments)
    arguments.add_argument("--records", type=int, default=20_000, help="of each round")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--candidates", type=int, default=20, help="of each request")
    arguments.add_argument("--only", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    options = arguments.parse_args()
    os.sched_setaffinity(0, {WORKER_CPU})
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    requests = [request(number, options.candidates) for number in range(options.records)]
    value = pipeline_stub.example_scores(requests[-1])
    try:
        with Path(os.devnull).open("w") as nowhere, open_broker(options.broker, cpus=str(OTHER_CPU)) as bootstrap:
            structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
            settings, topics = KafkaSettings(bootstrap_servers=bootstrap), TopicSettings()
            run(prepare(settings, topics, requests))
            rates = measure(settings, topics, value, len(requests), options)
    except ExitstreamError as error:
        exit_on_error(error)
    figures = summary(rates) | {
        "records": options.records,
        "candidates": options.candidates,
        "request_bytes": len(encode(requests[-1])),
        "score_bytes": len(value),
        "pinned": f"program on processor {WORKER_CPU}, broker on processor {OTHER_CPU}",
    }
    finish(figures, options.out)


def request(number: int, candidates: int) -> ImpressionRequest:
    """One of the requests: users in turn, other candidates each."""
    return ImpressionRequest(
        request_id=f"request-{number:08d}",
        user_id=f"user-{number % USERS:06d}",
        candidate_item_ids=[f"item-{(number * 7 + place) % 9_973:06d}" for place in range(candidates)],
        created_time_ms=time.time_ns() // 1_000_000,
        budget_ms=pipeline_stub.BUDGET_MS,
    )


async def prepare(settings: KafkaSettings, topics: TopicSettings, requests: list[ImpressionRequest]) -> None:
    """Makes the topics and writes the requests, keyed by user."""
    await create_missing_topics(settings, topics.specs())
    headers = tuple(headers_for("msgpack"))
    async with RecordSink(settings) as sink:
        for one in requests:
            await sink.send(OutRecord(topics.impression_requests, one.user_id.encode(), encode(one), headers))
        await sink.flush()


def measure(
    settings: KafkaSettings, topics: TopicSettings, value: bytes, records: int, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Records per second of every contestant in every round; a round before them does not count."""
    rates: dict[str, list[float]] = {name: [] for name in options.only}
    for number in range(options.rounds + 1):
        for name in options.only:
            contestant, delivery = CONTESTANTS[name]
            kafka = settings.model_copy(update={"delivery": delivery})
            gc.collect()
            gc.freeze()  # as the worker does, so that neither pays for what the other left
            rate = records / run(contestant(kafka, topics, f"{name}-{number}-{time.time_ns()}", records, value))
            print(f"round {number}, {name}: {rate:,.0f} records/s", file=sys.stderr)
            if number:
                rates[name].append(rate)
    return rates


def summary(rates: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Medians, and the pipeline's in relation to the bare loop's."""
    middle = {name: median(values) for name, values in rates.items()}
    figures: dict[str, Any] = {f"{name}_records_per_second": value for name, value in middle.items()}
    for mode in ("", "exactly_once_"):
        if f"{mode}pipeline" in middle and f"{mode}raw" in middle:
            figures[f"{mode}pipeline_to_raw"] = middle[f"{mode}pipeline"] / middle[f"{mode}raw"]
    return figures | {"rounds": {name: list(values) for name, values in rates.items()}}


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine on uvloop, as the programs do."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


if __name__ == "__main__":
    main()
