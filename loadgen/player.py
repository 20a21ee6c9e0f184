"""Replays a plan through Kafka: catalogue and history at full speed, then requests at a steady rate, in time order.

Arrivals do not wait for answers (open loop), so an overloaded worker cannot slow down the load that measures it. The
data set's times are moved to the present: the history ends now, and a page's events happen when they are sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from graph_updater.graph.config import GraphConfig
from loadgen.plan import Impression, Plan
from loadgen.report import Answers
from programs.topics import TopicSettings
from runtime.clock import Clock, SystemClock
from runtime.errors import ExitstreamError
from runtime.kafka import RecordSink, TopicFollower
from runtime.records import OutRecord
from runtime.settings import KafkaSettings
from schemas.codec import MessageDecoder, WireFormat, encode, headers_for
from schemas.messages import ImpressionRequest, ImpressionScores, Interaction, Message, UserState
from schemas.packed_states import StateDecoder

CLICK_DELAY_S: Final = 0.25
"""A page's events are sent this long after its request."""
PAGE_GAP_S: Final = 0.75
"""Least time between two pages of one user. A log of many months is replayed in a minute: without this gap, a user's
next page would be requested before the clicks on the previous one are sent.
"""
_ACTIVE_MS: Final = GraphConfig().user_idle_ms // 2
"""The updater forgets users of an old history who have been idle for twice this long."""
ANSWER_PATIENCE_S: Final = 20.0
"""How long to wait for the last answers."""


class StatesMissing(ExitstreamError):
    """The history was sent, but the updater published no user states from it in time."""


def record_of(topic: str, key: str, message: Message, wire_format: WireFormat) -> OutRecord:
    """A record with the headers that say how to decode it."""
    return OutRecord(topic, key.encode(), encode(message, wire_format), tuple(headers_for(wire_format)))


def request_of(
    impression: Impression, created_ms: int, *, request_id: str | None = None, budget_ms: int | None = None
) -> ImpressionRequest:
    """The request that an impression stands for; under its own id unless another one is given."""
    return ImpressionRequest(
        request_id=request_id or impression.request_id,
        user_id=impression.user_id,
        candidate_item_ids=impression.item_ids,
        created_time_ms=created_ms,
        budget_ms=budget_ms,
    )


class PageOrder:
    """The order of impressions: the plan's, except that a user's next page waits for the gap to pass.

    Args:
        impressions: in the order of the plan.
        gap_s: least seconds between two pages of one user.
    """

    def __init__(self, impressions: Sequence[Impression], gap_s: float) -> None:
        self._waiting = deque(impressions)
        self._gap_s = gap_s
        self._free_at_s: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def next(self, now_s: float) -> Impression | None:
        """The first impression whose user may open a page now; None if all of them have to wait."""
        for place, impression in enumerate(self._waiting):
            if self._free_at_s.get(impression.user_id, 0.0) <= now_s:
                del self._waiting[place]
                self._free_at_s[impression.user_id] = now_s + self._gap_s
                return impression
        return None


_Page = tuple[float, Sequence[Interaction]]
"""When to send a page's events (monotonic seconds), and the events."""


@dataclass(slots=True)
class Player:
    """One replay of a plan.

    Attributes:
        answers: the scores read so far; grows while the replay runs.
        sent: the impressions sent so far; grows while the replay runs.
    """

    kafka: KafkaSettings
    topics: TopicSettings
    plan: Plan
    rate: float
    """Requests per second."""
    clock: Clock = field(default_factory=SystemClock)
    answers: Answers = field(default_factory=Answers)
    sent: list[Impression] = field(default_factory=list)

    async def prepare(self, patience_s: float) -> None:
        """Send catalogue and history, then wait until the updater has published every user whom it has not forgotten.

        Raises:
            StatesMissing: it did not within `patience_s`.
        """
        shift_ms = self.clock.wall_ms() - _last_time(self.plan.history)
        history = [_at(event, event.event_time_ms + shift_ms) for event in self.plan.history]
        async with RecordSink(self.kafka) as sink:
            for item in self.plan.items:
                await sink.send(self._record(self.topics.items, item.item_id, item))
            for event in history:
                await sink.send(self._record(self.topics.interactions, event.user_id, event))
            await sink.flush()
        active_ms = self.clock.wall_ms() - _ACTIVE_MS
        active = {event.user_id: event.event_time_ms for event in history if event.event_time_ms >= active_ms}
        await self._wait_for_states(active, patience_s)

    async def play(self) -> None:
        """Send the requests at their rate and each page's events after it; read scores until all are there."""
        scores = TopicFollower(self.kafka, [self.topics.ctr_scores], start_from="latest", out_of_range="earliest")
        await scores.start()
        reading = asyncio.create_task(self._read_scores(scores))
        try:
            async with RecordSink(self.kafka) as sink:
                await self._send_impressions(sink)
                await self._wait_for_answers(reading)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await scores.stop()

    async def _wait_for_states(self, awaited: dict[str, int], patience_s: float) -> None:
        """Return once each user's published state includes the user's last event."""
        decoder = StateDecoder(UserState)
        states = TopicFollower(self.kafka, [self.topics.user_states], out_of_range="earliest")
        await states.start()
        try:
            async with asyncio.timeout(patience_s):
                while awaited:
                    for record in await states.poll():
                        if record.value is None:
                            continue
                        state = decoder.decode(record.value, record.headers)
                        if awaited.get(state.user_id, state.last_event_time_ms + 1) <= state.last_event_time_ms:
                            del awaited[state.user_id]
        except TimeoutError as error:
            raise StatesMissing(
                f"{len(awaited)} users of the history have no current record in {self.topics.user_states} after "
                f"{patience_s:.0f} s: is `exitstream updater` running on {self.kafka.bootstrap_servers}?"
            ) from error
        finally:
            await states.stop()

    async def _send_impressions(self, sink: RecordSink) -> None:
        pages: asyncio.Queue[_Page | None] = asyncio.Queue()
        async with asyncio.TaskGroup() as sending:
            sending.create_task(self._send_requests(sink, pages))
            sending.create_task(self._send_clicks(sink, pages))
        await sink.flush()

    async def _send_requests(self, sink: RecordSink, pages: asyncio.Queue[_Page | None]) -> None:
        started = self.clock.monotonic()
        order = PageOrder(self.plan.impressions, PAGE_GAP_S)
        number = 0
        while order:
            due = started + number / self.rate
            await self._sleep_until(due)
            number += 1
            impression = order.next(self.clock.monotonic())
            if impression is None:
                continue
            request = request_of(impression, self.clock.wall_ms())
            await sink.send(self._record(self.topics.impression_requests, request.user_id, request))
            self.sent.append(impression)
            pages.put_nowait((due + CLICK_DELAY_S, impression.events))
        pages.put_nowait(None)

    async def _send_clicks(self, sink: RecordSink, pages: asyncio.Queue[_Page | None]) -> None:
        while (page := await pages.get()) is not None:
            due, events = page
            await self._sleep_until(due)
            for event in events:
                now = _at(event, self.clock.wall_ms())
                await sink.send(self._record(self.topics.interactions, event.user_id, now))

    async def _read_scores(self, scores: TopicFollower) -> None:
        decoder = MessageDecoder(ImpressionScores)
        while True:
            records = await scores.poll()
            read_ms = self.clock.wall_ms()
            for record in records:
                self.answers.add(decoder.decode(record.value, record.headers), read_ms)

    async def _wait_for_answers(self, reading: asyncio.Task[None]) -> None:
        give_up = self.clock.monotonic() + ANSWER_PATIENCE_S
        awaited = {impression.request_id for impression in self.sent}
        while self.clock.monotonic() < give_up and not reading.done():
            if awaited <= self.answers.by_request.keys():
                return
            await asyncio.sleep(0.05)
        if reading.done():
            reading.result()

    def _record(self, topic: str, key: str, message: Message) -> OutRecord:
        return record_of(topic, key, message, self.kafka.wire_format)

    async def _sleep_until(self, monotonic: float) -> None:
        await asyncio.sleep(max(0.0, monotonic - self.clock.monotonic()))


def _at(event: Interaction, time_ms: int) -> Interaction:
    return msgspec.structs.replace(event, event_time_ms=max(0, time_ms))


def _last_time(history: Iterable[Interaction]) -> int:
    return max((event.event_time_ms for event in history), default=0)
