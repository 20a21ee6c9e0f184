"""Requests at given moments, whatever becomes of those before (open loop), and the scores as they can be read.

A request's created time is the moment at which it was due, not the one at which the generator got round to sending it,
so a generator that falls behind makes latencies longer instead of hiding them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from loadgen.plan import Impression
from loadgen.records import record_of
from programs.topics import TopicSettings
from runtime.clock import Clock, SystemClock
from runtime.kafka import RecordSink, TopicFollower
from runtime.records import OutRecord
from runtime.settings import KafkaSettings
from schemas.codec import MessageDecoder
from schemas.messages import ImpressionRequest, ImpressionScores

PATIENCE_S: Final = 30.0
"""How long after the last request to wait for answers."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to be sent."""

    due_s: float
    """Seconds after the start; what is due at a negative time arrives late, that long after it was made."""
    impression: Impression
    budget_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and what came back; both None if nothing did."""

    arrival: Arrival
    scores: ImpressionScores | None
    latency_ms: float | None


def poisson(rate: float, duration_s: float, random: np.random.Generator, start_s: float = 0.0) -> NDArray[np.float64]:
    """Arrival times of a Poisson process of so many per second."""
    count = random.poisson(rate * duration_s)
    return np.sort(start_s + random.uniform(0.0, duration_s, count))


class OpenLoop:
    """Sends and gathers; stays connected over several runs.

    Args:
        kafka: how to reach Kafka.
        topics: their names.
        clock: the time.
    """

    def __init__(self, kafka: KafkaSettings, topics: TopicSettings, clock: Clock | None = None) -> None:
        self._kafka = kafka
        self._topics = topics
        self._clock = clock or SystemClock()
        self._sink = RecordSink(kafka)
        self._follower = TopicFollower(kafka, [topics.ctr_scores], start_from="latest", out_of_range="latest")
        self._decoder = MessageDecoder(ImpressionScores, max_bytes=kafka.max_record_bytes)
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
        waiting = {f"run{self._runs}-{number}": arrival for number, arrival in enumerate(arrivals)}
        answers: dict[str, Answer] = {}
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._send_all(waiting))
            tasks.create_task(self._gather(waiting, answers, sending))
        return [answers.get(name, Answer(arrival, None, None)) for name, arrival in waiting.items()]

    async def _send_all(self, arrivals: dict[str, Arrival]) -> None:
        start, start_ms = self._clock.monotonic(), self._clock.wall_ms()
        for name, arrival in arrivals.items():
            wait_s = start + arrival.due_s - self._clock.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            await self._sink.send(self._record(name, arrival, start_ms + round(arrival.due_s * 1000)))
        await self._sink.flush()

    async def _gather(self, sent: dict[str, Arrival], answers: dict[str, Answer], sending: asyncio.Task[None]) -> None:
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
                give_up = self._clock.monotonic() + PATIENCE_S

    def _record(self, name: str, arrival: Arrival, created_ms: int) -> OutRecord:
        request = ImpressionRequest(
            request_id=name,
            user_id=arrival.impression.user_id,
            candidate_item_ids=arrival.impression.item_ids,
            created_time_ms=created_ms,
            budget_ms=arrival.budget_ms,
        )
        return record_of(self._topics.impression_requests, request.user_id, request, self._kafka.wire_format)
