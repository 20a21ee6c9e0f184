"""How long a worker takes to start beside topics with the states of many users: without saved tables, and with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchmarks.scale_population import Population
from loadgen.processes import Processes, Program
from programs.topics import TopicSettings
from runtime.kafka import RecordSink, create_missing_topics
from runtime.records import OutRecord
from runtime.settings import KafkaSettings
from schemas.packed_states import PACKED_HEADERS

PATIENCE_S: Final = 900.0
SAVE_PATIENCE_S: Final = 60.0


def figures(population: Population, bundle: Path, bootstrap: str, folder: Path) -> dict[str, float]:
    """Publishes a population's states, then starts a worker three times: on nothing, on all states, on saved tables."""
    topics = TopicSettings()
    kafka = KafkaSettings(bootstrap_servers=bootstrap)
    asyncio.run(create_missing_topics(kafka, topics.specs()))
    environment = {
        "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "EXITSTREAM_WORKER__BUNDLE": str(bundle),
        "EXITSTREAM_WORKER__TABLES__SAVED": str(folder / "tables"),
    }
    with Processes(environment, folder / "logs") as processes:
        empty_s = _ready_after(processes)
        began_s = time.monotonic()
        asyncio.run(publish(kafka, topics, population))
        published_s = time.monotonic() - began_s
        first_s = _ready_after(processes)
        again_s = _ready_after(processes)
    return {
        "start_seconds_without_states": empty_s,
        "start_seconds": first_s,
        "restart_seconds": again_s,
        "published_states_per_second": (population.users + population.items) / published_s,
    }


def _ready_after(processes: Processes) -> float:
    """Seconds until a worker is ready; it is then asked to end, and saves its tables."""
    began_s = time.monotonic()
    processes.start(Program("worker", ["worker"]))
    processes.wait_ready(PATIENCE_S)
    took_s = time.monotonic() - began_s
    processes.drain("worker", SAVE_PATIENCE_S)
    return took_s


async def publish(kafka: KafkaSettings, topics: TopicSettings, population: Population) -> None:
    """Writes everybody's state."""
    async with RecordSink(kafka) as sink:
        await _send(sink, topics.item_states, population.item_states())
        await _send(sink, topics.user_states, population.user_states())


async def _send(sink: RecordSink, topic: str, states: Iterable[tuple[bytes, bytes]]) -> None:
    for key, value in states:
        await sink.send(OutRecord(topic, key, value, PACKED_HEADERS))
