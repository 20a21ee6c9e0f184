"""Sends requests at given times without waiting for answers (open loop), and reads the scores.

A request's created time is when it was due, not when it was sent: if the generator falls behind, latencies get longer
instead of hiding it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from loadgen.plan import Impression
from loadgen.player import record_of, request_of
from programs.topics import TopicSettings
from runtime.clock import Clock, SystemClock
from runtime.kafka import RecordSink, TopicFollower
from runtime.records import OutRecord
from runtime.settings import KafkaSettings
from schemas.codec import MessageDecoder
from schemas.messages import ImpressionScores

PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to be sent."""

    due_s: float
    """Seconds after the start. Negative: the request is already that old when it is sent."""
    impression: Impression
    budget_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and its scores; `scores` and `latency_ms` are None if it was not answered."""

    arrival: Arrival
    scores: ImpressionScores | None
    latency_ms: float | None


def poisson(count: int, duration_s: float, random: np.random.Generator, start_s: float = 0.0) -> NDArray[np.float64]:
    """Arrival times of a Poisson process that is known to have `count` arrivals within `duration_s`, ascending."""
    return np.sort(start_s + random.uniform(0.0, duration_s, count))


class OpenLoop:
    """Sends requests and reads their scores; stays connected over several runs.

    Args:
        kafka: how to reach Kafka.
        topics: their names.
        clock: the time.
        patience_s: how long to wait for answers after the last request was sent.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: TopicSettings,
        clock: Clock | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._patience_s = patience_s
        self._kafka = kafka
        self._topics = topics
        self._clock = clock or SystemClock()
        self._sink = RecordSink(kafka)
        self._follower = TopicFollower(kafka, [topics.ctr_scores], start_from="latest", out_of_range="latest")
        self._decoder = MessageDecoder(ImpressionScores, max_bytes=kafka.max_record_bytes)
        self._name = uuid.uuid4().hex[:8]  # an answer to another loop's request, delivered again, must not count here
        self._runs = 0

    async def __aenter__(self) -> Self:
        await self._sink.start()
        await self._follower.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._follower.stop()
        await self._sink.stop()

    async def run(self, arrivals: Sequence[Arrival]) -> list[Answer]:
        """Send all arrivals when they are due; return their answers in the arrivals' order."""
        self._runs += 1
        waiting = {f"{self._name}-{self._runs}-{number}": arrival for number, arrival in enumerate(arrivals)}
        answers: dict[str, Answer] = {}
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._send_all(waiting))
            tasks.create_task(self._read_scores(waiting, answers, sending))
        return [answers.get(name, Answer(arrival, None, None)) for name, arrival in waiting.items()]

    async def _send_all(self, arrivals: dict[str, Arrival]) -> None:
        start, start_ms = self._clock.monotonic(), self._clock.wall_ms()
        for name, arrival in arrivals.items():
            wait_s = start + arrival.due_s - self._clock.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            await self._sink.send(self._record(name, arrival, start_ms + round(arrival.due_s * 1000)))
        await self._sink.flush()

    async def _read_scores(
        self, sent: dict[str, Arrival], answers: dict[str, Answer], sending: asyncio.Task[None]
    ) -> None:
        give_up = float("inf")
        while len(answers) < len(sent) and self._clock.monotonic() < give_up:
            records = await self._follower.poll(timeout_ms=20)
            read_ms = self._clock.wall_ms()
            for record in records:
                scores = self._decoder.decode(record.value, record.headers)
                if scores.request_id in sent:
                    latency_ms = float(read_ms - scores.created_time_ms)
                    answers.setdefault(scores.request_id, Answer(sent[scores.request_id], scores, latency_ms))
            if sending.done() and give_up == float("inf"):
                give_up = self._clock.monotonic() + self._patience_s

    def _record(self, name: str, arrival: Arrival, created_ms: int) -> OutRecord:
        request = request_of(arrival.impression, created_ms, request_id=name, budget_ms=arrival.budget_ms)
        return record_of(self._topics.impression_requests, request.user_id, request, self._kafka.wire_format)
