"""The command `exitstream dead-letters` on real Kafka."""

from __future__ import annotations

import pytest
from dead_letter_contract import DeadLetterContract
from letter_desk import LetterDesk

from cli.dead_letters.replaying import TRANSACTIONAL_ID
from runtime.clock import SystemClock
from runtime.dead_letters import Letter
from runtime.kafka import TransactionalSink
from runtime.records import Record

pytestmark = pytest.mark.docker


class TestRealKafka(DeadLetterContract):
    """What needs transactions that are some, and limits of topics."""

    @pytest.fixture
    async def desk(self, broker, tmp_path):
        """The command, on topics of this test alone."""
        return await LetterDesk.on_new_topics(broker, tmp_path)

    async def test_an_interrupted_replay_leaves_neither_record_nor_mark(self, desk):
        """Killed within a transaction: the next run ends that, and replays the letter once."""
        topic = desk.topics.items
        await desk.refuse(Record(topic, 0, 0, b"k", b"v", (), 7))
        dead = desk.topics.dead_letter(topic)
        letter = Letter.read((await desk.contents(dead))[0])
        async with TransactionalSink(desk.broker.settings(), f"{TRANSACTIONAL_ID}.{dead}") as killed:
            await killed._producer.begin_transaction()
            await killed._producer.send_and_wait(topic, b"v", b"k")
            await killed._producer.send_and_wait(
                dead, b"", headers=list(letter.mark(dead, SystemClock()).headers), partition=0
            )
            assert "1 replayed, 0 replayed before" in await desk.run("replay", "--all")
        assert [record.value for record in await desk.contents(topic)] == [b"v"]

    async def test_what_an_open_transaction_holds_back_is_waited_for(self, desk):
        """A mark behind another producer's open transaction cannot be read yet; its letter is not replayed again."""
        topic = desk.topics.items
        dead = desk.topics.dead_letter(topic)
        await desk.refuse(Record(topic, 0, 0, b"k", b"v", (), 7))
        quick = desk.broker.settings(transaction_timeout_ms=6_000)
        async with TransactionalSink(quick, desk.broker.name("worker")) as worker:
            await worker._producer.begin_transaction()
            await worker._producer.send_and_wait(dead, b"unfinished", b"k", partition=0)
            letter = Letter.read((await desk.contents(dead))[0])
            earlier = TransactionalSink(desk.broker.settings(), desk.broker.name("replay"))
            async with earlier, earlier.transaction() as transaction:
                await transaction.send_all([letter.restored(), letter.mark(dead, SystemClock())])
            assert "0 replayed, 1 replayed before" in await desk.run("replay", "--all")
        assert [record.value for record in await desk.contents(topic)] == [b"v"]

    async def test_records_that_their_topic_does_not_take_are_refused_alone(self, desk):
        """Larger than its limit, or without a key where it is compacted: told one by one; all others are replayed."""
        topic = desk.topics.items
        contents = [(b"k", b"a"), (b"k", b"x" * 1_500_000), (b"k", b"b"), (None, b"no key"), (b"k", b"c")]
        await desk.refuse(*(Record(topic, 0, at, key, value, (), 7) for at, (key, value) in enumerate(contents)))

        assert "refused 2 records" in await desk.run("replay", "--all", fails=True)
        assert [record.value for record in await desk.contents(topic)] == [b"a", b"b", b"c"]
        assert [letter["replayed"] for letter in await desk.listed()] == [True, False, True, False, True]
        assert "max.message.bytes" in await desk.run("replay", "--all", fails=True, lines=True)
        assert len(await desk.contents(topic)) == 3
