"""A Kafka broker without Kafka, for demos and tests: librdkafka's mock cluster in a process of its own, on loopback.

It speaks the real protocol but stores little: a partition keeps about its newest 5 MB, every topic has four partitions
and is created when first asked about, nothing is compacted, nothing survives the process. Transactions succeed but
guarantee nothing: no producer is fenced, nothing is rolled back, and offsets sent in them are not kept. Anything that
needs more must run on real Kafka.

    with EmbeddedBroker() as broker:
        settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)

or `python -m runtime.embedded_broker`, which prints the address and runs until interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import subprocess
import sys
import threading
from typing import Any, Final, Self

from runtime.errors import BrokerError, MissingDependency

PARTITIONS: Final = 4
_START_LIMIT_S: Final = 30.0
_STOP_LIMIT_S: Final = 5.0


class EmbeddedBroker:
    """The broker's process, as a context manager. It ends with the block, or with its parent even if that is killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.bootstrap_servers = ""

    def start(self) -> None:
        """Starts the process and learns its address.

        Raises:
            MissingDependency: if confluent-kafka is not installed.
            BrokerError: if the process ends or says nothing.
        """
        _confluent_kafka()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runtime.embedded_broker", "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent, which stops this one last
        )
        self.bootstrap_servers = self._first_line()

    def stop(self) -> None:
        """Ends the process; does nothing if it has ended."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            process.communicate(timeout=_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _first_line(self) -> str:
        process = self._process
        if process is None or process.stdout is None or process.stderr is None:
            raise BrokerError("the embedded broker was not started")
        kill_timer = threading.Timer(_START_LIMIT_S, process.kill)
        kill_timer.start()
        line = process.stdout.readline().strip()
        kill_timer.cancel()
        if not line:
            said = process.stderr.read().strip() or f"nothing within {_START_LIMIT_S:.0f} s"
            self.stop()
            raise BrokerError(f"the embedded broker did not start; it said: {said}")
        return line


def main() -> None:
    """Runs a mock cluster of one broker until interrupted (or, by option, until stdin closes)."""
    parser = argparse.ArgumentParser(description="An embedded Kafka broker for demos and tests.")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the parent closes the pipe or dies")
    arguments = parser.parse_args()
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    cluster = _confluent_kafka().Producer({"test.mock.num.brokers": 1, "log_level": 3})
    print(_address(cluster), flush=True)
    if arguments.until_stdin_closes:
        threading.Thread(target=_set_when_stdin_closes, args=[stop], daemon=True).start()
    stop.wait()


def _set_when_stdin_closes(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def _address(cluster: Any) -> str:  # noqa: ANN401 - confluent-kafka carries no types
    brokers = cluster.list_topics(timeout=10).brokers.values()
    return ",".join(f"{broker.host}:{broker.port}" for broker in brokers)


def _confluent_kafka() -> Any:  # noqa: ANN401 - confluent-kafka carries no types
    try:
        return importlib.import_module("confluent_kafka")
    except ImportError as error:
        raise MissingDependency(
            "the embedded broker needs confluent-kafka: install exitstream[demo], or name a running Kafka"
        ) from error


if __name__ == "__main__":
    main()
