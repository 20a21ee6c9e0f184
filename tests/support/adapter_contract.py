"""What the adapter promises on any broker. Subclasses bring the fixture `broker`, a `brokers.TestBroker`."""

from __future__ import annotations

from collections import Counter

import pytest
from brokers import PARTITIONS, Hooks, partitions_of, read

from runtime.errors import BrokerUnreachable, OffsetsOutOfRange, RecordTooLarge, TopicMissing
from runtime.kafka import (
    RecordSink,
    RecordSource,
    TopicFollower,
    TransactionalSink,
    create_missing_topics,
    probe,
    require_topics,
)
from runtime.records import OutRecord, TopicPartition
from runtime.topic_specs import TopicSpec


class AdapterContract:
    """Tests that pass on the embedded broker and on Kafka alike."""

    async def test_a_record_arrives_as_it_was_sent(self, broker):
        """Key, value, headers, time and partition of a record survive the way through the broker."""
        topic = await broker.topic()
        sent = OutRecord(
            topic, b"\x00key", b"\xffvalue", (("a", b"\x80"), ("a", b"2")), partition=2, timestamp_ms=12_345
        )
        async with RecordSink(broker.settings()) as sink:
            await sink.send_and_wait(sent)
        follower = TopicFollower(broker.settings(), [topic])
        await follower.start()
        (got,) = await read(follower, 1)
        await follower.stop()
        assert (got.key, got.value, got.headers) == (sent.key, sent.value, sent.headers)
        assert (got.source, got.offset, got.timestamp_ms) == (TopicPartition(topic, 2), 0, 12_345)

    async def test_tombstones_and_records_without_key_arrive(self, broker):
        """A record may lack its value or its key."""
        topic = await broker.topic()
        async with RecordSink(broker.settings()) as sink:
            await sink.send(OutRecord(topic, b"key", None, partition=0))
            await sink.send(OutRecord(topic, None, b"value", partition=0))
        follower = TopicFollower(broker.settings(), [topic])
        await follower.start()
        records = await read(follower, 2)
        await follower.stop()
        assert [(record.key, record.value) for record in records] == [(b"key", None), (None, b"value")]

    async def test_a_group_goes_on_behind_its_committed_offsets(self, broker):
        """A new member of the group reads what was not committed, and nothing that was."""
        topic, group = await broker.topic(), broker.name("group")
        await broker.fill(topic, 40)
        first = RecordSource(broker.settings(), [topic], group)
        await first.start()
        await read(first, 40)
        committed = {TopicPartition(topic, 0): 10, TopicPartition(topic, 1): 4}
        assert await first.commit({**committed, TopicPartition("foreign", 0): 3}) == committed
        await first.stop()

        second = RecordSource(broker.settings(), [topic], group)
        await second.start()
        records = await read(second, 26)
        lag = await second.lag()
        await second.stop()
        offsets = {(record.partition, record.offset) for record in records}
        assert offsets == {(1, n) for n in range(4, 10)} | {(p, n) for p in (2, 3) for n in range(10)}
        assert set(lag.values()) == {0}

    async def test_a_text_stands_beside_a_committed_offset_until_the_next_commit(self, broker):
        """Whoever owns the partition next finds it, with the offset and the partition's end; where nothing was
        committed, the beginning.
        """
        topic, group = await broker.topic(), broker.name("group")
        await broker.fill(topic, 40)
        here, there = TopicPartition(topic, 0), TopicPartition(topic, 1)
        first = RecordSource(broker.settings(), [topic], group)
        await first.start()
        await first.commit({here: 4, there: 5}, {here: "at work"})
        assert await first.left_behind(here, 3) == (4, "at work", 10)
        assert await first.left_behind(TopicPartition(topic, 2), 3) == (0, "", 10)
        await first.stop()

        second = RecordSource(broker.settings(), [topic], group)
        await second.start()
        assert await second.left_behind(here, 3) == (4, "at work", 10)
        assert await second.left_behind(there, 3) == (5, "", 10)
        await second.commit({here: 4})
        assert (await second.left_behind(here, 3)).metadata == ""
        await second.stop()

    async def test_where_reading_began_at_the_end_nothing_before_it_is_left_behind(self, broker):
        """Or else a first commit that only says who is at work would send the next owner back to the beginning."""
        topic = await broker.topic()
        await broker.fill(topic, 40)
        source = RecordSource(broker.settings(), [topic], broker.name("group"), start_from="latest")
        await source.start()
        await source.commit({TopicPartition(topic, 1): 5})
        assert await source.left_behind(TopicPartition(topic, 0), 10) == (10, "", 10)
        assert await source.left_behind(TopicPartition(topic, 1), 10) == (5, "", 10)
        await source.stop()

    async def test_a_paused_partition_waits_while_the_others_go_on(self, broker):
        """Pausing holds back one partition without losing its records; resuming gives them."""
        topic = await broker.topic()
        held, *others = partitions_of(topic)
        source = RecordSource(broker.settings(), [topic], broker.name("group"))
        await source.start()
        source.pause([held])
        assert source.paused() == {held}
        await broker.fill(topic, 40)
        records = await read(source, 30)
        assert await source.poll(timeout_ms=200) == []
        assert {record.source for record in records} == set(others)
        source.resume([held])
        records = await read(source, 10)
        await source.stop()
        assert {record.source for record in records} == {held}

    async def test_a_follower_catches_up_and_then_goes_on(self, broker):
        """A follower says when it has handed out everything that was there, and hands out what comes later."""
        topic, empty = await broker.topic(), await broker.topic("empty")
        await broker.fill(topic, 100)
        follower = TopicFollower(broker.settings(), [topic, empty])
        await follower.start()
        assert not follower.caught_up
        records = []
        while not follower.caught_up:
            records += await follower.poll(max_records=7)
        assert len(records) == 100
        assert follower.progress() == (100, 100)
        await broker.fill(topic, 4)
        assert len(await read(follower, 4)) == 4
        await follower.stop()

    async def test_a_follower_of_empty_topics_is_caught_up_at_once(self, broker):
        """Where nothing is, nothing has to be waited for."""
        follower = TopicFollower(broker.settings(), [await broker.topic()])
        await follower.start()
        assert follower.caught_up
        await follower.stop()

    async def test_a_follower_goes_on_from_the_offsets_of_a_snapshot(self, broker):
        """Start offsets are where reading begins; other partitions begin at the earliest."""
        topic = await broker.topic()
        await broker.fill(topic, 40)
        starts = {TopicPartition(topic, 0): 10, TopicPartition(topic, 1): 9}
        follower = TopicFollower(broker.settings(), [topic], start_from=starts)
        await follower.start()
        records = await read(follower, 21)
        await follower.stop()
        assert follower.caught_up
        assert sum(record.partition == 1 for record in records) == 1
        assert not any(record.partition == 0 for record in records)

    async def test_a_follower_can_begin_where_its_topics_end(self, broker):
        """What was there at the start is not read, what comes later is."""
        topic = await broker.topic()
        await broker.fill(topic, 40)
        follower = TopicFollower(broker.settings(), [topic], start_from="latest")
        await follower.start()
        assert follower.caught_up
        await broker.fill(topic, 8)
        assert len(await read(follower, 8)) == 8
        await follower.stop()

    async def test_a_follower_reads_the_partitions_that_are_chosen(self, broker):
        """Others that are chosen later are read from their beginning, those that stay go on where they are."""
        topic, whole = await broker.topic(), await broker.topic("whole")
        await broker.fill(topic, 40)
        await broker.fill(whole, 8)
        follower = TopicFollower(broker.settings(), [topic, whole], chosen={topic: [0]})
        await follower.start()
        read_first = await read(follower, 18)
        assert follower.caught_up
        assert {record.partition for record in read_first if record.topic == topic} == {0}

        assert await follower.choose(topic, [0, 2])
        assert not follower.caught_up
        assert follower.is_behind(TopicPartition(topic, 2))
        assert not follower.is_behind(TopicPartition(topic, 0))
        await broker.fill(topic, 4)
        read_later = await read(follower, 12)
        assert Counter(record.partition for record in read_later) == {0: 1, 2: 11}
        assert follower.caught_up

        assert await follower.choose(topic, [1])
        assert await follower.choose(topic, [])
        assert follower.caught_up
        await broker.fill(topic, 4)
        await broker.fill(whole, 4)
        read_last = await read(follower, 4)
        await follower.stop()
        assert {record.topic for record in read_last} == {whole}

    async def test_a_follower_refuses_start_offsets_that_are_not_kept(self, broker):
        """State that stands for records which are gone is not silently continued."""
        topic = await broker.topic()
        lost = {TopicPartition(topic, 0): 77}
        follower = TopicFollower(broker.settings(), [topic], start_from=lost)
        with pytest.raises(OffsetsOutOfRange, match="77") as raised:
            await follower.start()
        assert raised.value.offsets == lost

        await broker.fill(topic, 8)
        follower = TopicFollower(broker.settings(), [topic], start_from=lost, out_of_range="earliest")
        await follower.start()
        assert len(await read(follower, 8)) == 8
        assert follower.resets == 1
        await follower.stop()

    async def test_a_record_too_large_is_refused_and_the_sink_goes_on(self, broker):
        """Only the record itself fails; dead letters are exempt from the setting."""
        topic = await broker.topic()
        settings = broker.settings(max_record_bytes=2_000, batch_bytes=2_000)
        async with RecordSink(settings) as sink:
            with pytest.raises(RecordTooLarge, match="max_record_bytes"):
                await sink.send(OutRecord(topic, b"k", b"v" * 2_000))
            await sink.send_and_wait(OutRecord(topic, b"k", b"v" * 3_000, any_size=True))
            await sink.send_and_wait(OutRecord(topic, b"k", b"small"))
        assert sorted(map(len, await broker.contents(topic))) == [5, 3_000]

    async def test_a_flush_waits_for_everything_sent(self, broker):
        """After a flush nothing is in flight."""
        topic = await broker.topic()
        async with RecordSink(broker.settings(linger_ms=20)) as sink:
            for number in range(100):
                await sink.send(OutRecord(topic, None, b"%d" % number))
            assert sink.in_flight > 0
            await sink.flush()
            assert sink.in_flight == 0

    async def test_zstd_arrives(self, broker):
        """Compressed batches are read back."""
        topic = await broker.topic()
        async with RecordSink(broker.settings(compression="zstd")) as sink:
            for _ in range(50):
                await sink.send(OutRecord(topic, b"k", b"v" * 100))
        assert await broker.contents(topic) == [b"v" * 100] * 50

    async def test_a_transaction_carries_its_records(self, broker):
        """What was sent in transactions can be read once they are committed."""
        topic = await broker.topic()
        async with TransactionalSink(broker.settings(), broker.name("id")) as sink:
            for number in range(3):
                async with sink.transaction() as transaction:
                    await transaction.send(OutRecord(topic, b"k", b"%d" % number))
            async with sink.transaction():
                pass
        assert await broker.contents(topic) == [b"0", b"1", b"2"]

    async def test_many_records_at_once_go_where_single_ones_go(self, broker):
        """Keys keep their partition and order, values and tombstones arrive, whatever does not fit into one batch."""
        topic = await broker.topic()
        records = [
            OutRecord(topic, b"key %d" % (n % 9), b"%d" % n * 400 if n % 5 else None, (("h", b"%d" % n),))
            for n in range(200)
        ]
        async with TransactionalSink(broker.settings(batch_bytes=2_048), broker.name("id")) as sink:
            async with sink.transaction() as transaction:
                await transaction.send_all(records)
            async with sink.transaction() as transaction:
                for record in records:
                    await transaction.send(record)
        follower = TopicFollower(broker.settings(), [topic])
        await follower.start()
        got = await read(follower, 400)
        await follower.stop()
        for partition in range(PARTITIONS):
            contents = [(one.key, one.value, one.headers) for one in got if one.partition == partition]
            at_once, one_by_one = contents[: len(contents) // 2], contents[len(contents) // 2 :]
            assert at_once == one_by_one

    async def test_one_record_too_large_among_many_is_refused(self, broker):
        """Before anything is written; `fits` tells beforehand."""
        topic = await broker.topic()
        large = OutRecord(topic, b"k", b"x" * 3_000)
        async with TransactionalSink(
            broker.settings(max_record_bytes=2_048, batch_bytes=2_048), broker.name("id")
        ) as sink:
            with pytest.raises(RecordTooLarge):  # noqa: PT012 - the block is what raises
                async with sink.transaction() as transaction:
                    assert not transaction.fits(large)
                    await transaction.send_all([OutRecord(topic, b"k", b"v"), large])
        assert await broker.contents(topic) == []

    async def test_topics_are_made_once(self, broker):
        """What is missing is made, what is there is left alone, and asking again changes nothing."""
        specs = [TopicSpec(broker.name("made"), PARTITIONS) for _ in range(2)]
        first = await create_missing_topics(broker.settings(), specs[:1])
        assert first.created == (specs[0].name,)
        second = await create_missing_topics(broker.settings(), specs)
        assert (second.created, second.present) == ((specs[1].name,), (specs[0].name,))
        cluster = await require_topics(broker.settings(), [spec.name for spec in specs])
        assert cluster.partitions == {spec.name: PARTITIONS for spec in specs}

    async def test_another_number_of_partitions_is_reported_not_changed(self, broker):
        """A difference is told in one line."""
        name = await broker.topic()
        report = await create_missing_topics(broker.settings(), [TopicSpec(name, PARTITIONS + 2)])
        assert f"{name}: 4 partitions, not 6" in report.differences
        assert (await require_topics(broker.settings(), [name])).partitions == {name: PARTITIONS}

    async def test_a_missing_topic_is_named_and_not_made(self, broker):
        """Whoever reads a topic that is not there learns its name and the command that makes it."""
        name = broker.name("missing")
        for reader in (RecordSource(broker.settings(), [name], "g"), TopicFollower(broker.settings(), [name])):
            with pytest.raises(TopicMissing, match=f"{name}.*exitstream topics create"):
                await reader.start()

    async def test_a_probe_succeeds_where_a_broker_is(self, broker):
        """The probe returns once the broker and those it names can be reached."""
        await probe(broker.settings())

    async def test_tls_to_a_plain_listener_is_explained(self, broker):
        """A security protocol that does not fit the listener ends in one line about it."""
        settings = broker.settings(security_protocol="SSL", connect_timeout_s=0.5)
        with pytest.raises(BrokerUnreachable, match="security_protocol") as raised:
            await probe(settings)
        assert "\n" not in str(raised.value)

    async def test_a_hook_that_fails_ends_the_start(self, broker):
        """The client library would log and forget what a rebalance hook raises; here it comes out."""
        source = RecordSource(broker.settings(), [await broker.topic()], broker.name("group"))
        with pytest.raises(RuntimeError, match="no room"):
            await source.start(Hooks(assigned=RuntimeError("no room for these")))
        assert source.assignment() == frozenset()
