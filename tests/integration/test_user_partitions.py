"""Workers that hold the users of their own partitions only, several in a group."""

from __future__ import annotations

import pytest
from worker_lab import USERS, WorkerLab, requests, until

from runtime.errors import SettingsError
from runtime.kafka import RecordSink, create_missing_topics
from runtime.records import OutRecord
from runtime.topic_specs import TopicSpec
from schemas.codec import encode
from worker.partition_checks import count_partitions

pytestmark = pytest.mark.docker
HELD = "exitstream_worker_table_entries"
PARTITIONS = 4


@pytest.fixture
async def lab(broker, tiny_bundle_folder):
    """States to know, on the real broker."""
    lab = WorkerLab(broker, tiny_bundle_folder)
    await lab.prepare()
    return lab


def _own(lab, **tables):
    return lab.settings(tables={"users": "assigned"} | tables)


def _users_of(service, kind="assigned"):
    """How many partitions' users a worker holds, and how many users."""
    return (
        service.metrics.value("exitstream_worker_user_partitions", kind=kind),
        service.metrics.value(HELD, kind="user"),
    )


async def _ask(lab, first, count=20):
    await lab.ask(*requests(count, first=first))
    return await lab.scores(first + count)


async def test_two_workers_share_the_users_and_the_one_that_stays_reads_those_of_the_other(lab):
    """Every request is answered where its user is known; no user is held twice."""
    settings = _own(lab)
    async with lab.worker(settings) as first:
        assert first.metrics.value("exitstream_worker_user_partitions", kind="read") == PARTITIONS
        async with lab.worker(settings) as second:
            await until(lambda: _users_of(first)[0] == _users_of(second)[0] == PARTITIONS / 2)
            await until(lambda: _users_of(first)[1] + _users_of(second)[1] == USERS)
            await until(lambda: first.readiness.is_ready and second.readiness.is_ready)
            answers = await _ask(lab, 0)
            assert 0 < _users_of(second)[1] < USERS
        await until(lambda: _users_of(first) == (PARTITIONS, USERS))
        await until(lambda: first.readiness.is_ready)
        answers = await _ask(lab, 20)

    assert sorted(scores.request_id for scores in answers) == sorted(f"r{number}" for number in range(40))
    assert all(scores.embedding_version == 1 and scores.user_state_read for scores in answers)


async def test_standby_partitions_are_read_before_they_are_needed(lab):
    """Each of two workers holds all users then, but for the partitions of one."""
    settings = _own(lab, standby_partitions=2)
    async with lab.worker(settings) as first:
        async with lab.worker(settings) as second:
            await until(lambda: _users_of(first, "standby") == _users_of(second, "standby") == (2, USERS))
            read = first.metrics.value("exitstream_worker_states_total", topic=lab.topics.user_states)
        await until(lambda: _users_of(first) == (PARTITIONS, USERS))
        await until(lambda: first.readiness.is_ready)
        answers = await _ask(lab, 0)

    assert all(scores.embedding_version == 1 for scores in answers)
    assert first.metrics.value("exitstream_worker_states_total", topic=lab.topics.user_states) == read


async def test_a_request_that_lies_elsewhere_is_answered_and_says_that_its_user_was_not_known(lab):
    """Whichever worker reads it may not hold the user."""
    settings = _own(lab)
    async with lab.worker(settings) as first, lab.worker(settings) as second:
        await until(lambda: _users_of(first)[0] == _users_of(second)[0] == PARTITIONS / 2)
        await until(lambda: first.readiness.is_ready and second.readiness.is_ready)
        async with RecordSink(lab.broker.settings()) as sink:
            [request] = requests(1)
            for partition in range(PARTITIONS):
                await sink.send(OutRecord(lab.topics.impression_requests, b"k", encode(request), partition=partition))
            await sink.flush()
        answers = await lab.scores(PARTITIONS)
        counted = sum(
            service.metrics.value("exitstream_worker_misplaced_requests_total") for service in (first, second)
        )

    assert sorted(scores.user_state_read for scores in answers) == [False, False, True, True]
    assert all(scores.user_state_read == (scores.embedding_version == 1) for scores in answers)
    assert counted == 2


async def test_topics_of_different_numbers_of_partitions_are_refused(broker, tiny_bundle_folder):
    """In one line that says what to do."""
    lab = WorkerLab(broker, tiny_bundle_folder)
    requests_topic = TopicSpec(lab.topics.impression_requests, 3, 1, {})
    others = [spec for spec in lab.topics.specs() if spec.name != requests_topic.name]
    await create_missing_topics(lab.broker.settings(), [requests_topic, *others])

    with pytest.raises(SettingsError, match=r"has 3 partitions and .* has 4 partitions: .*worker.tables.users"):
        await count_partitions(_own(lab))
