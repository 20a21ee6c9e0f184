"""The adapter on real Kafka: what the embedded broker promises too, and what only Kafka does."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from adapter_contract import AdapterContract
from brokers import PARTITIONS, Hooks, partitions_of, read

from programs.topics import TopicSettings
from runtime.errors import Fenced, TransactionTimedOut
from runtime.kafka import RecordSink, RecordSource, TopicFollower, TransactionalSink, create_missing_topics
from runtime.records import OutRecord, TopicPartition
from runtime.topic_specs import TopicSpec


class TestRealKafka(AdapterContract):
    """Everything that any broker must do."""

    async def test_offsets_out_of_range_are_counted_and_read_from_the_earliest(self, broker):
        """A group whose committed offset is not there reads its partition anew and counts it."""
        topic, group = await broker.topic(), broker.name("group")
        await broker.fill(topic, 8)
        first = RecordSource(broker.settings(), [topic], group)
        await first.start()
        await first.commit(dict.fromkeys(partitions_of(topic), 2) | {TopicPartition(topic, 3): 1_000})
        await first.stop()

        second = RecordSource(broker.settings(), [topic], group)
        await second.start()
        records = await read(second, 2)
        await second.stop()
        assert [(record.partition, record.offset) for record in records] == [(3, 0), (3, 1)]
        assert second.resets == 1


async def test_topics_are_made_as_the_settings_say(broker):
    """Compaction, retention and partitions are the broker's own afterwards: a second look finds no difference."""
    fields = (
        "interactions",
        "items",
        "impression_requests",
        "ctr_scores",
        "shadow_scores",
        "user_states",
        "item_states",
        "item_parts",
    )
    names = {field: broker.name(field.replace("_", "-")) for field in fields}
    topics = TopicSettings(**names, partitions=3, retention_ms=3_600_000)
    made = await create_missing_topics(broker.settings(), topics.specs())
    assert len(made.created) == 11
    again = await create_missing_topics(broker.settings(), topics.specs())
    assert (again.created, again.differences) == ((), ())
    wrong = TopicSpec(topics.items, 3, config={"cleanup.policy": "delete"})
    report = await create_missing_topics(broker.settings(), [wrong])
    assert report.differences == (f"{topics.items}: cleanup.policy is compact, not delete",)


async def test_two_members_share_the_partitions_and_hand_them_over(broker):
    """A second member takes over half; when it leaves, the first has all again; hooks see every step in order."""
    topic, group = await broker.topic(), broker.name("group")
    everything = frozenset(partitions_of(topic))
    first, second = (RecordSource(broker.settings(), [topic], group) for _ in range(2))
    hooks = Hooks()
    await first.start(hooks)
    assert hooks.events == [("assigned", everything)]
    async with polled(first):
        await second.start()
        async with polled(second):
            await until(lambda: len(first.assignment()) == len(second.assignment()) == PARTITIONS // 2)
            assert first.assignment() | second.assignment() == everything
        await second.stop()
        await until(lambda: first.assignment() == everything)
    await first.stop()
    assert hooks.events[1] == ("revoked", everything)
    assert [kind for kind, _ in hooks.events] == ["assigned", "revoked"] * (len(hooks.events) // 2) + ["assigned"]


async def test_a_rebalance_waits_for_work_in_flight_and_its_commit(broker):
    """What is finished and committed while partitions are being revoked is not read again by their next owner."""
    topic, group = await broker.topic(), broker.name("group")
    await broker.fill(topic, 40)
    first, second = (RecordSource(broker.settings(), [topic], group) for _ in range(2))

    async def finish_and_commit():
        await asyncio.sleep(0.2)
        await first.commit(dict.fromkeys(partitions_of(topic), 10))

    await first.start(Hooks(before_revoked=finish_and_commit))
    await read(first, 40)
    async with polled(first):
        await second.start()
        assert await second.poll(timeout_ms=500) == []
        await second.stop()
    await first.stop()


async def test_a_commit_for_partitions_taken_away_is_no_error(broker):
    """Offsets of partitions that have moved to another member are left out silently."""
    topic, group = await broker.topic(), broker.name("group")
    first, second = (RecordSource(broker.settings(), [topic], group) for _ in range(2))
    await first.start()
    async with polled(first):
        await second.start()
        async with polled(second):
            await until(lambda: len(first.assignment()) == len(second.assignment()) == PARTITIONS // 2)
            committed = await first.commit(dict.fromkeys(partitions_of(topic), 0))
            assert set(committed) == first.assignment()
        await second.stop()
    await first.stop()


async def test_what_a_transaction_takes_back_is_never_read(broker):
    """An error inside the block comes out of it, its records stay unseen, and the sink goes on."""
    topic = await broker.topic()
    async with TransactionalSink(broker.settings(), broker.name("id")) as sink:
        with pytest.raises(RuntimeError, match="changed my mind"):  # noqa: PT012 - the block is what raises
            async with sink.transaction() as transaction:
                await transaction.send(OutRecord(topic, b"k", b"unseen"))
                raise RuntimeError("changed my mind")
        async with sink.transaction() as transaction:
            await transaction.send(OutRecord(topic, b"k", b"seen"))
    assert await broker.contents(topic) == [b"seen"]


async def test_offsets_commit_with_their_records(broker):
    """Offsets added to a transaction are the group's once it is committed, and not before."""
    topic, group = await broker.topic(), broker.name("group")
    source = RecordSource(broker.settings(), [topic], group)
    await source.start()
    here = TopicPartition(topic, 1)
    async with TransactionalSink(broker.settings(), broker.name("id")) as sink:
        with contextlib.suppress(RuntimeError):
            async with sink.transaction() as transaction:
                await transaction.commit_offsets(group, {here: 5})
                raise RuntimeError
        assert await source.committed([here]) == {here: None}
        async with sink.transaction() as transaction:
            await transaction.commit_offsets(group, {here: 6})
    # The broker acknowledges a transaction before the group's coordinator has seen its marker.
    async with asyncio.timeout(10):
        while await source.committed([here]) != {here: 6}:
            await asyncio.sleep(0.02)
    await source.stop()


async def test_the_last_to_take_an_id_fences_the_others(broker):
    """The earlier holder's open transaction is aborted, and every further one of it fails as fenced."""
    topic, identity = await broker.topic(), broker.name("id")
    async with TransactionalSink(broker.settings(), identity) as old:
        with pytest.raises(Fenced):  # noqa: PT012 - the block is what raises
            async with old.transaction() as transaction:
                await transaction.send(OutRecord(topic, b"k", b"old"))
                async with TransactionalSink(broker.settings(), identity) as new, new.transaction() as newer:
                    await newer.send(OutRecord(topic, b"k", b"new"))
        with pytest.raises(Fenced):
            async with old.transaction() as transaction:
                await transaction.send(OutRecord(topic, b"k", b"old again"))
    assert await broker.contents(topic) == [b"new"]


async def test_a_transaction_that_takes_too_long_ends(broker):
    """Nothing hangs: a transaction has a time-out of its own, and a new sink of the same id goes on."""
    topic, identity = await broker.topic(), broker.name("id")
    async with TransactionalSink(broker.settings(transaction_timeout_ms=500), identity) as slow:
        with pytest.raises(TransactionTimedOut, match=r"0\.5 s"):  # noqa: PT012 - the block is what raises
            async with slow.transaction() as transaction:
                await transaction.send(OutRecord(topic, b"k", b"late"))
                await asyncio.sleep(5)
    async with TransactionalSink(broker.settings(), identity) as sink, sink.transaction() as transaction:
        await transaction.send(OutRecord(topic, b"k", b"in time"))
    assert await broker.contents(topic) == [b"in time"]


async def test_a_follower_takes_up_partitions_added_later(broker, kafka_container, docker_engine):
    """A topic that grows is followed as a whole, each record once, a paused partition staying paused."""
    topic = await broker.topic()
    follower = TopicFollower(broker.settings(), [topic], look_again_s=0.1)
    await follower.start()
    await broker.fill(topic, 8)
    records = await read(follower, 8)
    follower.pause([TopicPartition(topic, 3)])
    kafka = container_at(kafka_container.port, docker_engine)
    tool = "/opt/kafka/bin/kafka-topics.sh --bootstrap-server localhost:9094"
    altered = await asyncio.to_thread(kafka.exec_run, f"{tool} --alter --topic {topic} --partitions 6")
    assert altered.exit_code == 0, altered.output
    async with RecordSink(broker.settings()) as sink:
        for number in (2, 3, 5):
            await sink.send(OutRecord(topic, b"k", b"later", partition=number))
    records += await read(follower, 2)
    assert sorted(record.partition for record in records[8:]) == [2, 5]
    assert follower.paused() == {TopicPartition(topic, 3)}
    follower.resume()
    assert [(record.partition, record.offset) for record in await read(follower, 1)] == [(3, 2)]
    await follower.stop()


@pytest.mark.slow
async def test_reading_and_writing_outlive_a_restart_of_the_broker(broker, kafka_container, docker_engine):
    """Records sent while the broker is away are delivered once it is back, and read by the same consumer."""
    topic = await broker.topic()
    source = RecordSource(broker.settings(), [topic], broker.name("group"))
    await source.start()
    # A broker that holds the topics of many tests can take longer to come back than the usual 20 s.
    async with RecordSink(broker.settings(request_timeout_ms=120_000)) as sink:
        await sink.send_and_wait(OutRecord(topic, b"k", b"before"))
        restart = asyncio.create_task(asyncio.to_thread(container_at(kafka_container.port, docker_engine).restart))
        await asyncio.sleep(0.5)
        deliveries = [await sink.send(OutRecord(topic, b"k", b"during %d" % number)) for number in range(10)]
        await restart
        await asyncio.gather(*deliveries)
    records = await read(source, 11)
    assert {record.value for record in records} == {b"before", *(b"during %d" % number for number in range(10))}
    await source.stop()


def container_at(port, docker_engine):
    """The container that publishes its broker at this port."""
    published = {"HostIp": "127.0.0.1", "HostPort": str(port)}
    return next(one for one in docker_engine.containers.list() if published in (one.ports.get("9092/tcp") or ()))


@contextlib.asynccontextmanager
async def polled(source):
    """Polls in the background, as a member must."""

    async def poll():
        while True:
            await source.poll(timeout_ms=20)

    task = asyncio.create_task(poll())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition, limit_s=30.0):
    """Waits for something that will be so."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.02)
