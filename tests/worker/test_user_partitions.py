"""A worker that holds the users of its own partitions only, on the embedded broker, which knows groups of one."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from brokers import TestBroker
from worker_lab import WorkerLab, requests, until, user_state

from runtime.errors import SettingsError
from runtime.kafka import RecordSink, partition_of
from runtime.records import OutRecord
from schemas.codec import encode
from worker.partition_checks import count_partitions
from worker.user_partitions import UserPartitions

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


async def test_more_partitions_than_at_the_start_end_the_worker():
    """It cannot know whether the other topic has as many now; started anew it compares."""
    partitions = UserPartitions(4)
    partitions.assign(frozenset({0, 3}), frozenset({1}))
    assert partitions.wanted == {0, 1, 3}

    with pytest.raises(SettingsError, match="partition 4 is assigned, but the states of users had 4"):
        partitions.assign(frozenset({4}), frozenset())


async def test_waiting_for_all_partitions_ends_when_they_have_been_read():
    """And does not poll."""
    partitions = UserPartitions(2)
    partitions.assign(frozenset({1}), frozenset())
    waiting = asyncio.create_task(partitions.all_read())
    await asyncio.sleep(0)
    partitions.tell()
    await asyncio.sleep(0)
    assert not waiting.done()

    class Held:
        read = frozenset({1})

    partitions.serve(Held())
    await asyncio.wait_for(waiting, 1)
