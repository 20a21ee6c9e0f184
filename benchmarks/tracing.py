"""What do traces cost a worker?

    python -m benchmarks.tracing --out out/tracing.json

The worker's own pipeline over real Kafka around a model that answers at once (`benchmarks.pipeline_stub`): with nothing
to compute per request, whatever traces cost shows most. Each traced request has the spans that a real one has, and all
spans go by OTLP over HTTP to a collector in another process, which drops them.

Three contestants take turns, each with a new group over the same requests, which come without a trace:

- `off`: traces switched off.
- `on`: switched on with nothing else said, so that one request in a hundred is traced.
- `all`: `OTEL_TRACES_SAMPLER=always_on`: every request is traced.

A contestant is compared with `off` of the same round; the medians over the rounds are told. The program is pinned to
one processor, broker and collector to another.

Keys of the JSON file:

- `on_throughput`, `all_throughput`: records per second, as a share of those of `off`.
- `on_us`, `all_us`: processor time of the program per request beyond that of `off`, microseconds.
- `off_records_per_second`, `off_us`: median rate, and processor time per request.
- `rounds`: rates and processor times, by contestant.
- `records`, `candidates`, `pinned`: the conditions.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import structlog

from benchmarks import pipeline, pipeline_stub
from benchmarks.harness import add_broker, exit_on_error, finish, parser
from benchmarks.overload_site import OTHER_CPU, WORKER_CPU
from loadgen.brokers import open_broker
from programs.topics import TopicSettings
from runtime.errors import ExitstreamError
from runtime.observability.tracing import tracing
from runtime.settings import KafkaSettings, TelemetrySettings
from worker.app import SWITCH_INTERVAL_S

CONTESTANTS: Final[Mapping[str, tuple[bool, str]]] = {"off": (False, ""), "on": (True, ""), "all": (True, "always_on")}
"""Whether there are traces, and what `OTEL_TRACES_SAMPLER` says."""


class Round(NamedTuple):
    """One contestant in one round."""

    records_per_second: float
    us: float
    """Processor time of the program per request."""


def main() -> None:
    """Measure, print the figures."""
    arguments = parser(__doc__ or "")
    add_broker(arguments)
    arguments.add_argument("--records", type=int, default=10_000, help="of each round")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--candidates", type=int, default=20, help="of each request")
    options = arguments.parse_args()
    os.sched_setaffinity(0, {WORKER_CPU})
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    requests = [pipeline.request(number, options.candidates) for number in range(options.records)]
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            collector() as address,
            open_broker(options.broker, cpus=str(OTHER_CPU)) as bootstrap,
        ):
            os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = address
            structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
            settings, topics = KafkaSettings(bootstrap_servers=bootstrap), TopicSettings()
            pipeline.run(pipeline.prepare(settings, topics, requests))
            rounds = measure(settings, topics, options)
    except ExitstreamError as error:
        exit_on_error(error)
    figures = summary(rounds) | {
        "records": options.records,
        "candidates": options.candidates,
        "pinned": f"program on processor {WORKER_CPU}, broker and collector on processor {OTHER_CPU}",
    }
    finish(figures, options.out)


def measure(settings: KafkaSettings, topics: TopicSettings, options: argparse.Namespace) -> dict[str, list[Round]]:
    """Every contestant in every round; a round before them does not count."""
    rounds: dict[str, list[Round]] = {name: [] for name in CONTESTANTS}
    for number in range(options.rounds + 1):
        for name in CONTESTANTS:
            measured = contest(name, settings, topics, options.records)
            print(f"round {number}, {name}: {measured.records_per_second:,.0f} records/s", file=sys.stderr)
            if number:
                rounds[name].append(measured)
    return rounds


def contest(name: str, settings: KafkaSettings, topics: TopicSettings, records: int) -> Round:
    """One contestant over all requests. Sending the last spans counts as processor time, not as time."""
    traces, os.environ["OTEL_TRACES_SAMPLER"] = CONTESTANTS[name]
    group = f"{name}-{time.time_ns()}"
    gc.collect()
    gc.freeze()  # as the worker does, so that none pays for what another left
    began_s = time.process_time()
    with tracing(TelemetrySettings(traces=traces), "worker") as tracer:
        seconds = pipeline.run(pipeline_stub.run(settings, topics, group, records, b"", tracer))
    return Round(records / seconds, 1e6 * (time.process_time() - began_s) / records)


def summary(rounds: Mapping[str, Sequence[Round]]) -> dict[str, Any]:
    """Medians over the rounds of each contestant's difference from `off` in the same round."""
    off = rounds["off"]
    figures: dict[str, Any] = {
        "off_records_per_second": median(one.records_per_second for one in off),
        "off_us": median(one.us for one in off),
    }
    for name in CONTESTANTS.keys() - {"off"}:
        pairs = list(zip(rounds[name], off, strict=True))
        figures[f"{name}_throughput"] = median(one.records_per_second / base.records_per_second for one, base in pairs)
        figures[f"{name}_us"] = median(one.us - base.us for one, base in pairs)
    return figures | {"rounds": {name: [list(one) for one in ones] for name, ones in rounds.items()}}


@contextmanager
def collector() -> Iterator[str]:
    """The address of a collector that drops everything, in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_collect, args=[theirs], daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _collect(port: Connection) -> None:
    os.sched_setaffinity(0, {OTHER_CPU})
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Dropping)
    port.send(server.server_port)
    server.serve_forever()


class _Dropping(BaseHTTPRequestHandler):
    """Answers every export, keeps none."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    main()
