"""Keeping the tables filled from the compacted topics."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from programs.topics import TopicSettings
from runtime.clock import ManualClock
from runtime.observability.readiness import Readiness
from runtime.process.lifecycle import owned_tasks
from runtime.records import Record
from schemas.codec import encode
from worker.compute import ComputeThread
from worker.metrics import WorkerMetrics
from worker.outcomes.live import LiveOutcomes
from worker.outcomes.settings import OutcomeSettings
from worker.state_feed import StateFeed
from worker.state_store.settings import TableSettings
from worker.state_store.state_reader import StateReader
from worker.state_store.tables import Tables

TOPICS = TopicSettings()
FRESHNESS = "exitstream_worker_freshness_seconds"


class Follower:
    """Hands out portions of records; caught up after the first ones."""

    def __init__(self, *portions: list[Record], filling: int = 1) -> None:
        self._portions = list(portions)
        self._filling = filling
        self.stopped = False

    @property
    def caught_up(self) -> bool:
        return self._filling == 0

    def progress(self) -> tuple[int, int]:
        return 0, 1

    async def poll(self) -> list[Record]:
        if not self._portions:
            await asyncio.Event().wait()
        self._filling = max(0, self._filling - 1)
        return self._portions.pop(0)

    async def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def state(user_state):
    """Makes records of a user's state, by the user's past."""

    def make(*past: str) -> Record:
        return Record(TOPICS.user_states, 0, 0, b"u", encode(user_state("u", [1, 0, 0, 0], past)))

    return make


async def test_freshness_is_the_age_of_an_event_when_its_effect_can_be_served(tables, state):
    """Events of the initial fill do not count; a later one counts from its event time until it is in the tables."""
    clock, metrics, readiness = ManualClock(wall_ms=2_502), WorkerMetrics(), Readiness(("tables",))
    outcomes = LiveOutcomes(OutcomeSettings(), metrics, clock)
    follower = Follower([state("+a")], [state("+a", "-b", "+c")])
    async with owned_tasks() as spawn:
        thread = ComputeThread()
        spawn(thread.run(), "compute")
        feed = StateFeed(follower, StateReader(TOPICS, 100_000), tables, thread, metrics, outcomes, batch=10)
        spawn(feed.follow(clock, readiness), "states")
        await feed.filled()
        assert readiness.is_ready
        async with asyncio.timeout(10):
            while not metrics.value(f"{FRESHNESS}_count"):
                await asyncio.sleep(0.01)

    assert metrics.value(f"{FRESHNESS}_count") == 1
    assert metrics.value(f"{FRESHNESS}_sum") == pytest.approx(2.5)
    assert metrics.value("exitstream_worker_states_total", topic=TOPICS.user_states) == 2
    assert tables.users.histories.lengths[tables.users.ids.row("u")] == 3
    assert follower.stopped


async def test_scores_learn_from_states_what_became_of_them(tables, state):
    """Of a state that the tables refuse nothing is learned."""
    clock, metrics = ManualClock(wall_ms=2_502), WorkerMetrics()
    outcomes = LiveOutcomes(OutcomeSettings(), metrics, clock)
    answer = SimpleNamespace(
        request=SimpleNamespace(user_id="u"),
        item_ids=["a", "b", "c"],
        ctr=np.array([0.1, 0.2, 0.3]),
        made_by=np.zeros(3, np.int8),
        scored_time_ms=0,
        model_version="m",
    )
    outcomes.note(answer)
    refused = Record(TOPICS.user_states, 0, 0, b"other", state("+x", "+a", "+b", "+c").value)
    follower = Follower([state("+a", "-b"), refused])
    async with owned_tasks() as spawn:
        thread = ComputeThread()
        spawn(thread.run(), "compute")
        feed = StateFeed(follower, StateReader(TOPICS, 100_000), tables, thread, metrics, outcomes, batch=10)
        spawn(feed.follow(clock, Readiness(("tables",))), "states")
        await feed.filled()
    clock.advance(OutcomeSettings().wait_s)

    assert outcomes.judge().settled == 1
    assert outcomes.figures.expired == 2


class FailingOnce(ThreadPoolExecutor):
    """Fails once; then trains when `gate` is set."""

    def __init__(self):
        super().__init__(1)
        self.gate = threading.Event()
        self.attempts = 0

    def submit(self, job, /, *arguments, **named):
        self.attempts += 1
        if self.attempts == 1:
            raise MemoryError("std::bad_alloc")
        return super().submit(lambda: (self.gate.wait(), job(*arguments, **named))[1])


class IdleFollower(Follower):
    """Goes on without records after the portions; `said` are the worker's reasons at each poll."""

    def __init__(self, readiness, at_poll, *portions):
        super().__init__(*portions)
        self.said = []
        self._readiness = readiness
        self._at_poll = at_poll

    async def poll(self):
        self.said.append(self._readiness.reasons().get("tables"))
        self._at_poll.get(len(self.said), lambda: None)()
        await asyncio.sleep(0.001)
        return await super().poll() if self._portions else []


async def test_tables_are_filled_once_the_search_indexes_are_trained(text, user_state):
    """A worker is not ready while its searches compare with every entry; why is said, also that a training failed."""
    clock, metrics, readiness = ManualClock(wall_ms=0), WorkerMetrics(), Readiness(("tables",))
    states = [
        Record(TOPICS.user_states, 0, 0, name.encode(), encode(user_state(name, [1, 0, 0, 1], ["+a"])))
        for name in "stuvwxyz"
    ]
    with FailingOnce() as executor:
        follower = IdleFollower(readiness, {3: lambda: clock.advance(5), 5: executor.gate.set}, states)
        tables = Tables(text, 4, TableSettings(exact_search_limit=4), executor, clock.monotonic)
        outcomes, reader = LiveOutcomes(OutcomeSettings(), metrics, clock), StateReader(TOPICS, 100_000)
        async with owned_tasks() as spawn, asyncio.timeout(10):
            thread = ComputeThread()
            spawn(thread.run(), "compute")
            feed = StateFeed(follower, reader, tables, thread, metrics, outcomes, batch=10)
            spawn(feed.follow(clock, readiness), "states")
            await feed.filled()
            assert readiness.is_ready

    assert not tables.user_index.exact
    failed = "training the index of 8 users; attempts failed so far: 1, the log says why"
    assert follower.said[1:5] == [failed] * 4
