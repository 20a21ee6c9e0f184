"""Requests that come before their user's state has been read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import encode
from worker.awaiting_states import SHARE_OF_BUDGET, RequestsAwaitingStates
from worker.metrics import WorkerMetrics
from worker.user_partitions import UserPartitions

WAITED = "exitstream_worker_awaited_states_total"


@pytest.fixture
def partitions():
    """One partition, assigned and not read."""
    partitions = UserPartitions(1)
    partitions.assign(frozenset({0}), frozenset())
    return partitions


@pytest.fixture
async def desk(make_desk, partitions):
    """A worker that holds that partition's users."""
    return make_desk(partitions=partitions)


def _read(partitions):
    partitions.serve(SimpleNamespace(read=frozenset({0})))


async def _work_until(desk, count):
    async with asyncio.timeout(10):
        while len(desk.scores()) < count:
            await desk.work()
            await asyncio.sleep(0.005)


async def test_a_request_waits_for_the_state_and_is_answered_from_it(desk, partitions):
    """No head is asked before."""
    await desk.accept(desk.record(encode(desk.request("i1", "i2"))))
    await desk.work()
    assert not desk.scores()
    _read(partitions)
    await desk.work()

    [scores] = desk.scores()
    assert scores.user_state_read
    assert scores.embedding_version == 1
    assert {score.made_by for score in scores.scores} <= {"confident", "final"}
    assert desk.metrics.value(WAITED, outcome="read") == 1


async def test_after_half_of_its_time_the_graph_answers_and_the_scores_say_so(desk):
    """In time, although nobody has read the state."""
    await desk.accept(desk.record(encode(desk.request("i1", "i2", budget_ms=400))))
    await _work_until(desk, 1)

    [scores] = desk.scores()
    assert not scores.user_state_read
    assert {score.made_by for score in scores.scores} == {"graph"}
    assert scores.status == "ok"
    assert desk.metrics.value(WAITED, outcome="in_vain") == 1


async def test_a_request_whose_user_is_held_elsewhere_does_not_wait(desk, partitions):
    """It is answered by a head, as for a user of whom nothing is known, marked and counted."""
    partitions.assign(frozenset(), frozenset())
    await desk.accept(desk.record(encode(desk.request("i1"))))
    await desk.work()

    [scores] = desk.scores()
    assert not scores.user_state_read
    assert scores.scores[0].made_by in {"confident", "final"}
    assert desk.metrics.value("exitstream_worker_misplaced_requests_total") == 1


async def test_who_wants_a_head_to_answer_gets_one(desk):
    """For a user of whom it knows nothing."""
    await desk.accept(desk.record(encode(desk.request("i1", budget_ms=20, quality_floor="first_head"))))
    await _work_until(desk, 1)

    [scores] = desk.scores()
    assert not scores.user_state_read
    assert scores.scores[0].made_by in {"confident", "final", "deadline"}


async def test_nobody_waits_once_the_partitions_are_taken_away(desk):
    """The rebalance waits for what is in flight."""
    await desk.accept(desk.record(encode(desk.request("i1"))), desk.record(encode(desk.request("i2"))))
    desk.pipeline.awaiting.close()
    await desk.accept(desk.record(encode(desk.request("i3"))))
    await asyncio.sleep(0)
    await _work_until(desk, 3)
    assert [scores.user_state_read for scores in desk.scores()] == [False] * 3

    desk.pipeline.awaiting.open()
    await desk.accept(desk.record(encode(desk.request("i4"))))
    await asyncio.sleep(0.01)
    await desk.work()
    assert len(desk.scores()) == 3


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["ask", "read", "lose", "close", "open", "time"]), max_size=30))
def test_every_request_goes_on_exactly_once(events):
    """Whatever happens in which order; none is kept for ever."""

    async def play():
        gone_on, asked = [], []
        partitions, metrics = UserPartitions(1), WorkerMetrics()
        partitions.assign(frozenset({0}), frozenset())
        awaiting = RequestsAwaitingStates(partitions, metrics, gone_on.append)
        held = SimpleNamespace(read=frozenset())
        partitions.serve(held)
        for event in events:
            if event == "ask":
                job = _Job(len(asked))
                asked.append(job)
                if not awaiting.keep(job):
                    gone_on.append(job)
            elif event in {"read", "lose"}:
                held.read = frozenset({0}) if event == "read" else frozenset()
                partitions.tell()
            elif event in {"close", "open"}:
                getattr(awaiting, event)()
            else:
                await asyncio.sleep(0.002)
        awaiting.close()
        await asyncio.sleep(0.002)
        assert sorted(job.number for job in gone_on) == sorted(job.number for job in asked)

    asyncio.run(play())


class _Job:
    """What is asked of a request here."""

    may_be_late = False
    arrived_s = 0.0
    due_s = 0.001 / SHARE_OF_BUDGET

    def __init__(self, number):
        self.number = number
        self.request = SimpleNamespace(user_id="u")
        self.user_state_read, self.graph_only = True, False
