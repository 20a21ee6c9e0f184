"""A worker that holds the users of its own partitions only, on the embedded broker, which knows groups of one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from brokers import TestBroker
from worker_lab import WorkerLab, requests, until, user_state

from programs.partition_checks import require_same_number
from runtime.errors import SettingsError
from runtime.kafka import RecordSink, TopicFollower, partition_of
from runtime.records import OutRecord, TopicPartition
from schemas.codec import encode
from worker.partition_checks import count_partitions
from worker.user_partitions import HeldPartitions, PartitionHooks, UserPartitions

PARTITIONS = 4


@pytest.fixture
async def lab(embedded_broker, request, tiny_bundle_folder):
    """States to know, on the embedded broker."""
    lab = WorkerLab(TestBroker(embedded_broker.bootstrap_servers, request.node.name[:40]), tiny_bundle_folder)
    await lab.prepare()
    return lab


def _own(lab, **tables):
    return lab.settings(tables={"users": "assigned"} | tables)


async def _ask(lab, first, count=20):
    await lab.ask(*requests(count, first=first))
    return await lab.scores(first + count)


async def test_a_worker_alone_answers_from_states_that_change(lab):
    """As one that holds all users does; its partitions are followed after they have been read."""
    async with lab.worker(_own(lab)) as service:
        assert not service.metrics.value("exitstream_worker_freshness_seconds_count")  # of what was there before
        await lab.tell(user_state(0, np.random.default_rng(0), version=7))
        await until(lambda: service.metrics.value("exitstream_worker_freshness_seconds_count"))
        answers = await _ask(lab, 0)

    assert {scores.embedding_version for scores in answers if scores.user_id == "u0"} == {7}


async def test_saved_tables_hold_the_partitions_that_a_worker_had(lab, tmp_path):
    """Its successor of the same name reads only what is newer."""
    settings = _own(lab, saved=str(tmp_path))
    async with lab.worker(settings):
        pass
    await lab.tell(user_state(0, np.random.default_rng(0), version=7))
    async with lab.worker(settings) as service:
        read_again = service.metrics.value("exitstream_worker_states_total", topic=lab.topics.user_states)
        answers = await _ask(lab, 0)

    assert read_again == 1
    assert {scores.embedding_version for scores in answers} == {1, 7}


@pytest.mark.parametrize("misplaced", [12, 6])
async def test_requests_under_other_partitions_than_their_users_are_refused(lab, misplaced):
    """As a producer with another partitioner writes them; some of them may lie there for another reason."""
    async with RecordSink(lab.broker.settings()) as sink:
        for number, request in enumerate(requests(20)):
            home = partition_of(request.user_id.encode(), PARTITIONS)
            partition = (home + (number < misplaced)) % PARTITIONS
            await sink.send(OutRecord(lab.topics.impression_requests, b"k", encode(request), partition=partition))
        await sink.send(OutRecord(lab.topics.impression_requests, b"k", b"junk"))
        await sink.flush()

    if misplaced > 10:
        with pytest.raises(SettingsError, match=r"of the 20 newest .* 12 lie in another partition .* murmur2"):
            await count_partitions(_own(lab))
    else:
        assert await count_partitions(_own(lab)) == PARTITIONS


async def test_added_partitions_of_users_end_the_worker(lab):
    """It would never read them; started anew it compares with the requests again."""
    partitions = UserPartitions(PARTITIONS - 1)
    states = TopicFollower(lab.broker.settings(), [lab.topics.user_states], chosen={lab.topics.user_states: [0]})
    await states.start()
    try:
        held = HeldPartitions(partitions, lab.topics.user_states, states, None, None, frozenset({0}))
        with pytest.raises(SettingsError, match=r"user-states has 4 partitions now, 3 when the worker started"):
            await held.adjust()
    finally:
        await states.stop()


async def test_added_partitions_of_requests_end_every_worker():
    """Also those that were given none of them: whose user lies where has changed."""
    hooks = PartitionHooks(None, UserPartitions(4), None, frozenset, lambda: 5, None)

    with pytest.raises(SettingsError, match="requests has 5 partitions now, 4 when the worker started"):
        await hooks.on_assigned(frozenset({TopicPartition("requests", 0)}))


async def test_waiting_for_all_partitions_ends_when_they_have_been_read():
    """And does not poll."""
    partitions = UserPartitions(2)
    partitions.assign(frozenset({1}), frozenset())
    waiting = asyncio.create_task(partitions.all_read())
    await asyncio.sleep(0)
    partitions.tell()
    await asyncio.sleep(0)
    assert not waiting.done()

    partitions.serve(_Held(1))
    await asyncio.wait_for(waiting, 1)


def test_different_numbers_of_partitions_are_refused():
    """In one line that says what to do."""
    require_same_number({"requests": 4, "states": 4}, "do without")

    with pytest.raises(SettingsError, match=r"requests has 3 partitions and states has 4 .*do without"):
        require_same_number({"requests": 3, "states": 4}, "do without")


async def test_a_rebalance_lets_nobody_wait_and_hands_out_partitions():
    """Waiting ends before the delivery waits for what is in flight, and begins anew with the new partitions."""
    partitions, told = UserPartitions(4), []

    class Recorder:
        def __getattr__(self, name):
            return lambda *_: told.append(name)

    class Delivering:
        async def on_revoked(self, _):
            told.append("revoked")

        async def on_assigned(self, _):
            told.append("assigned")

    requests_of = {TopicPartition("requests", 0), TopicPartition("requests", 2)}
    assignor = SimpleNamespace(standby=frozenset({1, 2}))
    hooks = PartitionHooks(Delivering(), partitions, assignor, lambda: requests_of, lambda: 4, Recorder())
    await hooks.on_revoked(frozenset())
    await hooks.on_assigned(frozenset({TopicPartition("requests", 0)}))

    assert told == ["close", "revoked", "assigned", "open"]
    assert (partitions.assigned, partitions.standby) == ({0, 2}, {1})


async def test_other_tables_serve_once_they_hold_what_those_before_held():
    """A partition may have come while a new model was warmed up."""
    partitions, former, later = UserPartitions(2), _Held(0, 1), _Held(0)
    partitions.assign(frozenset({0, 1}), frozenset())
    partitions.serve(former)
    waiting = asyncio.create_task(partitions.covered_by(later))
    await asyncio.sleep(0)
    partitions.tell()
    await asyncio.sleep(0)
    assert not waiting.done()

    later.read = former.read
    partitions.tell()
    await asyncio.wait_for(waiting, 1)
    assert not partitions._when_read


class _Held:
    def __init__(self, *read):
        self.read = frozenset(read)
