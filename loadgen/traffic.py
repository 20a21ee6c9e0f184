"""Open-loop load of requests and interactions for as long as wanted, and the books of what was answered.

Unlike `loadgen.open_loop`, which measures one run, it keeps going while brokers and programs come and go, and it reads
several outputs: one per delivery mode.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import msgspec
import structlog

from loadgen.ledger import Ledger
from loadgen.plan import Impression
from loadgen.player import record_of, request_of
from programs.topics import TopicSettings
from runtime.clock import Clock, SystemClock
from runtime.errors import BrokerError
from runtime.kafka import RecordSink, TopicFollower
from runtime.records import OutRecord
from runtime.settings import KafkaSettings
from schemas.codec import MessageDecoder
from schemas.messages import ImpressionScores, Interaction, Message

CLICK_DELAY_S: Final = 0.25
"""A page's events are sent this long after its request."""
_PATIENCE_MS: Final = 600_000
"""How long a record waits for its broker: outages are what the load is there for."""
_PAUSE_S: Final = 0.5
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the load goes and where its answers are read.

    Attributes:
        kafka: how to reach Kafka.
        topics: the names of the inputs.
        outputs: for each output of the ledger the topic with its scores.
    """

    kafka: KafkaSettings
    topics: TopicSettings
    outputs: Mapping[str, str]


class Traffic:
    """Sends pages in turn, each under a request id of its own, and its events after it. Stays connected.

    Args:
        destination: where to.
        pages: what to send; begun again at the end.
        tell: is told every interaction in the order of sending.
        clock: the time.

    Attributes:
        ledger: the requests and how often each was answered.
        interactions: number sent so far.
    """

    def __init__(
        self,
        destination: Destination,
        pages: Sequence[Impression],
        tell: Callable[[Interaction], object] = lambda _: None,
        clock: Clock | None = None,
    ) -> None:
        self._kafka = destination.kafka.model_copy(update={"request_timeout_ms": _PATIENCE_MS})
        self._topics = destination.topics
        self._output_of = {topic: output for output, topic in destination.outputs.items()}
        self._pages = pages
        self._tell = tell
        self._clock = clock or SystemClock()
        self._sink = RecordSink(self._kafka)
        self._follower = TopicFollower(destination.kafka, list(self._output_of))
        self._reading: asyncio.Task[None] | None = None
        self.ledger = Ledger(list(destination.outputs))
        self.interactions = 0

    async def __aenter__(self) -> Self:
        await self._sink.start()
        await self._follower.start()
        self._reading = asyncio.create_task(self._read_scores())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._follower.stop()
        await self._sink.stop()

    async def run(self, rate: float, stopping: asyncio.Event) -> None:
        """Send `rate` requests per second and each page's events after its request, until told to stop."""
        started, number = self._clock.monotonic(), 0
        pages: deque[tuple[float, Impression]] = deque()
        while not stopping.is_set():
            await asyncio.sleep(max(0.0, started + number / rate - self._clock.monotonic()))
            number += 1
            pages.append((self._clock.monotonic() + CLICK_DELAY_S, await self._request()))
            while pages and pages[0][0] <= self._clock.monotonic():
                await self._events_of(pages.popleft()[1])
        for _, page in pages:
            await self._events_of(page)
        await self._sink.flush()

    async def burst(self, count: int) -> range:
        """Send some requests at once; returns their numbers in the ledger."""
        first = self.ledger.sent
        for _ in range(count):
            await self._request()
        return range(first, self.ledger.sent)

    async def send(self, record: OutRecord) -> None:
        """Send a record that is none of the load's own, such as one that nobody can read."""
        await self._sink.send(record)

    async def flush(self) -> None:
        """Wait until everything sent is delivered."""
        await self._sink.flush()

    def check(self) -> None:
        """Raise what ended the reading of scores, if anything did."""
        if self._reading is not None and self._reading.done():
            self._reading.result()

    async def _request(self) -> Impression:
        page = self._pages[self.ledger.sent % len(self._pages)]
        now_ms = self._clock.wall_ms()
        request = request_of(page, now_ms, request_id=self.ledger.open(now_ms))
        await self._send(self._topics.impression_requests, request.user_id, request)
        return page

    async def _events_of(self, page: Impression) -> None:
        for event in page.events:
            now = msgspec.structs.replace(
                event, event_id=f"{event.event_id}~{self.interactions}", event_time_ms=self._clock.wall_ms()
            )
            self.interactions += 1
            self._tell(now)
            await self._send(self._topics.interactions, now.user_id, now)

    async def _send(self, topic: str, key: str, message: Message) -> None:
        await self._sink.send(record_of(topic, key, message, self._kafka.wire_format))

    async def _read_scores(self) -> None:
        decoder = MessageDecoder(ImpressionScores, max_bytes=self._kafka.max_record_bytes)
        while True:
            try:
                records = await self._follower.poll(timeout_ms=50)
            except BrokerError as error:
                log.info("reading the scores goes on in a moment", cause=str(error))
                await asyncio.sleep(_PAUSE_S)
                continue
            read_ms = self._clock.wall_ms()
            for record in records:
                scores = decoder.decode(record.value, record.headers)
                self.ledger.answer(self._output_of[record.topic], scores.request_id, read_ms)
