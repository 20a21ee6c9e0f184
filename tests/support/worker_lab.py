"""A worker on a broker, embedded or real, with states to know and requests to answer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

import msgspec
import numpy as np
from brokers import TestBroker

from programs.topics import TopicSettings
from runtime.clock import Clock
from runtime.kafka import RecordSink, TopicFollower, create_missing_topics
from runtime.records import OutRecord, Record
from runtime.settings import TelemetrySettings
from schemas.codec import MessageDecoder, WireFormat, encode, headers_for
from schemas.embeddings import encode_embedding
from schemas.messages import (
    ImpressionRequest,
    ImpressionScores,
    Item,
    ItemState,
    PastInteraction,
    UserState,
)
from worker.engine.settings import EngineSettings
from worker.settings import WorkerSection, WorkerSettings

State = TypeVar("State", UserState, ItemState)
PATIENCE_S = 90.0
DIM = 8
ITEMS, USERS = 20, 10
OUTPUTS = ("ctr_scores", "shadow_scores")


@dataclass
class WorkerLab:
    """Topics of this test's own on a broker, and what happens in them."""

    broker: TestBroker
    bundle: Path
    topics: TopicSettings = field(init=False)

    def __post_init__(self) -> None:
        prefix = self.broker.name("lab")
        plain = TopicSettings()
        names = ("interactions", "items", "impression_requests", *OUTPUTS, "user_states", "item_states", "item_parts")
        self.topics = TopicSettings(**{name: f"{prefix}-{getattr(plain, name)}" for name in names})

    def settings(self, *, kafka=None, **worker) -> WorkerSettings:
        """A worker's settings for these topics."""
        return WorkerSettings(
            kafka=self.broker.settings(**(kafka or {})),
            topics=self.topics,
            telemetry=TelemetrySettings(http_port=0),
            worker=WorkerSection(
                **{"bundle": str(self.bundle), "group_id": self.broker.name("group"), "threads": 1, "budget_ms": 30_000}
                | {"engine": EngineSettings(max_batch_tokens=512, warm_up_rounds=1)}
                | worker
            ),
        )

    async def prepare(self, space: str = "") -> None:
        """Makes the topics and tells of twenty items and ten users, with embeddings of a space."""
        await create_missing_topics(self.broker.settings(), self.topics.specs())
        async with RecordSink(self.broker.settings()) as sink:
            for number in range(ITEMS):
                await self._put(
                    sink, self.topics.items, f"i{number}", Item(item_id=f"i{number}", title=f"title {number}")
                )
            await sink.flush()
        await self.publish_states(space)

    async def publish_states(self, space: str = "", version: int = 1) -> None:
        """Tells everybody's state, with embeddings of a space (none named: they fit every bundle)."""
        generator = np.random.default_rng(5)
        async with RecordSink(self.broker.settings()) as sink:
            for number in range(ITEMS):
                state = in_space(_item_state(number, generator), space)
                await self._put(sink, self.topics.item_states, f"i{number}", state)
            for number in range(USERS):
                state = in_space(user_state(number, generator, version), space)
                await self._put(sink, self.topics.user_states, f"u{number}", state)
            await sink.flush()

    async def tell(self, message: UserState) -> None:
        """Publishes one more user state."""
        async with RecordSink(self.broker.settings()) as sink:
            await self._put(sink, self.topics.user_states, message.user_id, message)
            await sink.flush()

    async def ask(self, *requests: ImpressionRequest, junk: int = 0, wire_format: WireFormat = "msgpack") -> None:
        """Sends requests, keyed by user, and some records that are none."""
        async with RecordSink(self.broker.settings()) as sink:
            for request in requests:
                await self._put(sink, self.topics.impression_requests, request.user_id, request, wire_format)
            for number in range(junk):
                await sink.send(OutRecord(self.topics.impression_requests, b"%d" % number, b"\xc1 junk"))
            await sink.flush()

    async def scores(self, count: int, topic: str | None = None) -> list[ImpressionScores]:
        """All score records, as soon as there are this many (or patience ends)."""
        decoder = MessageDecoder(ImpressionScores)
        records = await self.records(topic or self.topics.ctr_scores, count)
        return [decoder.decode(record.value, record.headers) for record in records]

    async def records(self, topic: str, count: int) -> list[Record]:
        """What a topic holds, once it is at least so many records; read committed."""
        follower = TopicFollower(self.broker.settings(), [topic])
        await follower.start()
        records: list[Record] = []
        give_up_at = time.monotonic() + PATIENCE_S
        try:
            while (len(records) < count or not follower.caught_up) and time.monotonic() < give_up_at:
                records += await follower.poll()
        finally:
            await follower.stop()
        return records

    @asynccontextmanager
    async def worker(self, settings: WorkerSettings, clock: Clock | None = None):
        """A worker in this process; yields its service once it is ready, drains it at the end."""
        from worker.service import Service  # noqa: PLC0415 - imports torch

        service, stopping = Service(settings, threads=1, clock=clock), asyncio.Event()
        task = asyncio.create_task(service.main(stopping))
        try:
            await until(lambda: service.readiness.is_ready or task.done())
            if task.done():
                await task
            yield service
        finally:
            stopping.set()
            await asyncio.wait_for(task, PATIENCE_S)

    def process(self, settings: WorkerSettings, log: Path, command: Sequence[str] = ("-m", "worker")) -> WorkerProcess:
        """The same as a process of its own, started by the command of production or another."""
        environment = {
            "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
            "EXITSTREAM_KAFKA__DELIVERY": settings.kafka.delivery,
            "EXITSTREAM_KAFKA__SESSION_TIMEOUT_MS": str(settings.kafka.session_timeout_ms),
            "EXITSTREAM_KAFKA__COMMIT_INTERVAL_MS": str(settings.kafka.commit_interval_ms),
            "EXITSTREAM_WORKER__BUNDLE": settings.worker.bundle,
            "EXITSTREAM_WORKER__BUNDLE_CHECK_S": str(settings.worker.bundle_check_s),
            "EXITSTREAM_WORKER__GROUP_ID": settings.worker.group_id,
            "EXITSTREAM_WORKER__BUDGET_MS": str(settings.worker.budget_ms),
            "EXITSTREAM_WORKER__THREADS": "1",
            "EXITSTREAM_WORKER__ENGINE__MAX_BATCH_TOKENS": "512",
            "EXITSTREAM_WORKER__ENGINE__WARM_UP_ROUNDS": "1",
        }
        for name in ("interactions", "items", "impression_requests", *OUTPUTS, "user_states", "item_states"):
            environment[f"EXITSTREAM_TOPICS__{name.upper()}"] = getattr(settings.topics, name)
        return WorkerProcess(environment, log, command)

    async def _put(self, sink: RecordSink, topic: str, key: str, message, wire_format: WireFormat = "msgpack") -> None:
        headers = tuple(headers_for(wire_format))
        await sink.send(OutRecord(topic, key.encode(), encode(message, wire_format), headers))


class WorkerProcess:
    """`python -m worker`, or another command of Python, with a log file."""

    def __init__(self, environment: dict[str, str], log: Path, command: Sequence[str]) -> None:
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, *command], env={**os.environ, **environment}, stdout=file, stderr=file
            )

    async def ready(self) -> None:
        """Waits until its log says so."""
        await self.says("ready")

    async def says(self, event: str) -> None:
        """Waits until its log tells of an event."""
        told, give_up_at = f'"event": "{event}"'.encode(), time.monotonic() + PATIENCE_S
        while told not in self._log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise AssertionError(f"the worker did not say {event!r}:\n{self._log.read_text()}")
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """Ends it without warning."""
        self._process.kill()
        self._process.wait()

    @property
    def is_dead(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    async def drain(self) -> int:
        """Asks it to end in order; its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self._process.wait, PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            self.kill()


async def until(condition: Callable[[], object]) -> None:
    """Waits until something holds.

    Raises:
        TimeoutError: patience ended first.
    """
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


def requests(count: int, first: int = 0, **changes) -> list[ImpressionRequest]:
    """Requests r0, r1, …, of the users in turn, three candidates each."""
    now_ms = time.time_ns() // 1_000_000
    return [
        ImpressionRequest(
            **{
                "request_id": f"r{number}",
                "user_id": f"u{number % USERS}",
                "candidate_item_ids": [f"i{(number + step) % ITEMS}" for step in range(3)],
                "created_time_ms": now_ms,
            }
            | changes
        )
        for number in range(first, first + count)
    ]


def user_state(number: int, generator: np.random.Generator, version: int = 1) -> UserState:
    """A user with six past interactions."""
    now_ms = time.time_ns() // 1_000_000
    past = [
        PastInteraction(item_id=f"i{item}", event_time_ms=now_ms, positive=bool(item % 2), event_id=f"{number}-{item}")
        for item in generator.choice(ITEMS, 6, replace=False)
    ]
    return UserState(
        user_id=f"u{number}",
        embedding=encode_embedding(generator.normal(size=DIM).astype(np.float32), "float16", version),
        recent=past,
        impressions=6,
        positives=sum(entry.positive for entry in past),
        last_event_time_ms=now_ms,
        published_time_ms=now_ms,
    )


def in_space(state: State, space: str) -> State:
    """The state with an embedding made with the base embeddings of that space."""
    return msgspec.structs.replace(state, embedding=msgspec.structs.replace(state.embedding, space=space))


def _item_state(number: int, generator: np.random.Generator) -> ItemState:
    now_ms = time.time_ns() // 1_000_000
    return ItemState(
        item_id=f"i{number}",
        embedding=encode_embedding(generator.normal(size=DIM).astype(np.float32), "float16", 1),
        impressions=10,
        positives=number % 5,
        last_event_time_ms=now_ms,
        published_time_ms=now_ms,
    )
