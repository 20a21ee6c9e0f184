"""Plays a plan through Kafka: catalogue and history as fast as they go, then requests at a steady rate, in time order.

Arrivals do not wait for answers (open loop), so an overloaded worker cannot slow down what measures it. Times of the
data set are moved to the present: the history ends now, and what happens on a page happens when it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from loadgen.plan import Impression, Plan
from loadgen.records import record_of
from loadgen.report import Answers
from loadgen.turns import Turns
from programs.topics import TopicSettings
from runtime.clock import Clock, SystemClock
from runtime.errors import ExitstreamError
from runtime.kafka import RecordSink, TopicFollower
from runtime.records import OutRecord
from runtime.settings import KafkaSettings
from schemas.codec import MessageDecoder
from schemas.messages import ImpressionRequest, ImpressionScores, Interaction, Message, UserState

CLICK_DELAY_S: Final = 0.25
"""What happened on a page is sent this long after its request."""
PAGE_GAP_S: Final = 0.75
"""No user opens two pages within less: people first look at one. Without this a log of many months, replayed in a
minute, would ask for a user's next page before the click on the last one is even sent.
"""
ANSWER_PATIENCE_S: Final = 20.0
"""How long to wait for the last answers."""


class StatesMissing(ExitstreamError):
    """The history was sent, but no user states came of it."""


_Page = tuple[float, Sequence[Interaction]]
"""When to send what happened on a page (monotonic seconds), and what."""


@dataclass(slots=True)
class Player:
    """One play of a plan.

    Attributes:
        answers: the scores read so far; live.
        sent: the impressions sent so far; live.
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
        """Send catalogue and history, then wait until the updater has published every user of the history.

        Raises:
            StatesMissing: it has not within the patience.
        """
        shift_ms = self.clock.wall_ms() - _last_time(self.plan.history)
        history = [_at(event, event.event_time_ms + shift_ms) for event in self.plan.history]
        async with RecordSink(self.kafka) as sink:
            for item in self.plan.items:
                await sink.send(self._record(self.topics.items, item.item_id, item))
            for event in history:
                await sink.send(self._record(self.topics.interactions, event.user_id, event))
            await sink.flush()
        await self._wait_for_states({event.user_id: event.event_time_ms for event in history}, patience_s)

    async def play(self) -> None:
        """Send the requests at their rate, what happened after each, and gather the scores until all are there."""
        scores = TopicFollower(self.kafka, [self.topics.ctr_scores], start_from="latest", out_of_range="earliest")
        await scores.start()
        gathering = asyncio.create_task(self._gather(scores))
        try:
            async with RecordSink(self.kafka) as sink:
                await self._send_impressions(sink)
                await self._wait_for_answers(gathering)
        finally:
            gathering.cancel()
            await asyncio.gather(gathering, return_exceptions=True)
            await scores.stop()

    async def _wait_for_states(self, awaited: dict[str, int], patience_s: float) -> None:
        """Until each user's published state knows of their last event."""
        decoder = MessageDecoder(UserState)
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
        turns = Turns(self.plan.impressions, PAGE_GAP_S)
        number = 0
        while turns:
            due = started + number / self.rate
            await self._sleep_until(due)
            number += 1
            impression = turns.next(self.clock.monotonic())
            if impression is None:
                continue
            await sink.send(self._request(impression))
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

    async def _gather(self, scores: TopicFollower) -> None:
        decoder = MessageDecoder(ImpressionScores)
        while True:
            records = await scores.poll()
            read_ms = self.clock.wall_ms()
            for record in records:
                self.answers.add(decoder.decode(record.value, record.headers), read_ms)

    async def _wait_for_answers(self, gathering: asyncio.Task[None]) -> None:
        give_up = self.clock.monotonic() + ANSWER_PATIENCE_S
        awaited = {impression.request_id for impression in self.sent}
        while self.clock.monotonic() < give_up and not gathering.done():
            if awaited <= self.answers.by_request.keys():
                return
            await asyncio.sleep(0.05)
        if gathering.done():
            gathering.result()

    def _request(self, impression: Impression) -> OutRecord:
        request = ImpressionRequest(
            request_id=impression.request_id,
            user_id=impression.user_id,
            candidate_item_ids=impression.item_ids,
            created_time_ms=self.clock.wall_ms(),
        )
        return self._record(self.topics.impression_requests, impression.user_id, request)

    def _record(self, topic: str, key: str, message: Message) -> OutRecord:
        return record_of(topic, key, message, self.kafka.wire_format)

    async def _sleep_until(self, monotonic: float) -> None:
        await asyncio.sleep(max(0.0, monotonic - self.clock.monotonic()))


def _at(event: Interaction, time_ms: int) -> Interaction:
    return msgspec.structs.replace(event, event_time_ms=max(0, time_ms))


def _last_time(history: Iterable[Interaction]) -> int:
    return max((event.event_time_ms for event in history), default=0)
