"""Both delivery guarantees on an in-memory broker whose acknowledgements the tests control one by one."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from functools import partial

import pytest
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    ProducerFenced,
    TopicAuthorizationFailedError,
)
from memory_kafka import turns
from memory_member import HERE, THERE, member, outputs, record

from runtime.delivery.attempts import PartitionAttempts
from runtime.errors import RecordTooLarge
from runtime.kafka import TransactionalSink
from runtime.settings import KafkaSettings

BOTH = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])


@BOTH
async def test_a_record_is_done_when_the_last_of_its_outputs_is_delivered(broker, guarantee):
    """No earlier acknowledgement commits its offset or calls `on_delivered`, whatever their order."""
    broker.holds = True
    told = []
    async with member(broker, guarantee, HERE) as (_, delivery):
        assert delivery.started(record(0))
        await delivery.finished(record(0), outputs(b"a", b"b", b"c"), lambda: told.append("delivered"))
        await turns()
        for _ in range(2):
            broker.acknowledge(-1)
            assert not await delivery.drain(0.01)
            assert (broker.offsets, told, delivery.in_flight()) == ({}, [], 1)
        broker.acknowledge()
        assert await delivery.drain(5)
        assert (broker.offsets, told, delivery.in_flight()) == ({HERE: 1}, ["delivered"], 0)
    assert sorted(broker.outputs) == [b"a", b"b", b"c"]


@BOTH
@pytest.mark.parametrize("refused", [0, 1])
async def test_a_failed_delivery_is_repeated_and_its_record_counts_only_then(broker, guarantee, refused):
    """Whichever output fails, for example because a right was withdrawn: nothing from the record on is committed until
    it has been delivered; nothing ends for it.
    """
    broker.holds = True
    told = []
    async with member(broker, guarantee, HERE) as (_, delivery):
        for offset in range(2):
            assert delivery.started(record(offset))
        await delivery.finished(record(0), outputs(b"a", b"b"), lambda: told.append("delivered"))
        await turns()
        broker.refuse(TopicAuthorizationFailedError({"out"}), refused)
        broker.acknowledge()
        await turns()
        await delivery.finished(record(1), outputs(b"c"))
        assert not await delivery.drain(0.01)
        assert (broker.offsets, told) == ({}, [])
        broker.holds = False
        while broker.waiting:
            broker.acknowledge()
        assert await delivery.drain(30)
        assert told == ["delivered"]
    assert (set(broker.outputs), broker.offsets) == ({b"a", b"b", b"c"}, {HERE: 2})
    assert guarantee == "at_least_once" or broker.outputs == [b"a", b"b", b"c"]


@BOTH
async def test_an_unfinished_record_holds_back_the_offsets_behind_it(broker, guarantee):
    """What finishes early is committed once everything before it is finished."""
    async with member(broker, guarantee, HERE, THERE) as (_, delivery):
        for offset in range(3):
            assert delivery.started(record(offset))
        assert delivery.started(record(7, THERE))
        await delivery.finished(record(2), outputs(b"2"))
        await delivery.finished(record(1), [])
        await delivery.finished(record(7, THERE), outputs(b"7"))
        assert not await delivery.drain(0.01)
        assert broker.offsets == {THERE: 8}
        await delivery.finished(record(0), outputs(b"0"))
        assert await delivery.drain(5)
        assert broker.offsets == {THERE: 8, HERE: 3}


@BOTH
async def test_a_revocation_waits_for_work_in_flight_and_commits_it(broker, guarantee):
    """The next owner begins behind everything that was delivered; work on other partitions is not waited for."""
    broker.holds = True
    async with member(broker, guarantee, HERE, THERE, revocation_limit_s=3_600) as (source, delivery):
        assert delivery.started(record(0))
        assert delivery.started(record(4, THERE))
        revocation = asyncio.create_task(source.take_away(HERE))
        await turns()
        assert not revocation.done()
        await delivery.finished(record(0), outputs(b"0"))
        await turns()
        assert not revocation.done()
        broker.acknowledge()
        async with asyncio.timeout(10):
            await revocation
        assert (broker.offsets, delivery.in_flight()) == ({HERE: 1}, 1)


@BOTH
async def test_what_was_revoked_is_forgotten_and_the_rest_goes_on(broker, guarantee):
    """Records of a revoked partition are neither started nor committed, even once the partition is assigned again."""
    async with member(broker, guarantee, HERE, THERE, revocation_limit_s=1.0) as (source, delivery):
        for one in (record(0), record(1), record(0, THERE)):
            assert delivery.started(one)
        await delivery.finished(record(0), outputs(b"0"))
        await source.take_away(HERE)
        assert (broker.offsets, delivery.in_flight()) == ({HERE: 1}, 1)
        assert not delivery.started(record(2))
        await delivery.finished(record(1), outputs(b"late"))
        await turns()

        await source.give(HERE)
        assert not delivery.started(record(2))
        assert delivery.started(record(1, epoch=2))
        await delivery.finished(record(1), outputs(b"later still"))
        assert delivery.in_flight([HERE]) == 1
        await delivery.finished(record(1, epoch=2), outputs(b"1"))
        await delivery.finished(record(0, THERE), outputs(b"there"))
        assert await delivery.drain(5)
        assert broker.offsets == {HERE: 2, THERE: 1}
    assert sorted(broker.outputs) == [b"0", b"1", b"there"]


@BOTH
async def test_offsets_are_committed_beside_the_work(broker, guarantee):
    """`run` commits what is done, each offset once; a record without outputs is done at once."""
    async with member(broker, guarantee, HERE) as (_, delivery):
        running = asyncio.create_task(delivery.run())
        for offset in range(3):
            assert delivery.started(record(offset))
            await delivery.finished(record(offset), outputs(b"%d" % offset) if offset else [])
            async with asyncio.timeout(10):
                while broker.offsets.get(HERE) != offset + 1:
                    await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        running.cancel()
    assert broker.outputs == [b"1", b"2"]
    assert str(broker.log).count("'offset'") == 3


@BOTH
async def test_no_offset_is_ever_readable_before_the_outputs_before_it(broker, guarantee):
    """Whenever the program may die, everything before the committed offset has its outputs."""
    broker.holds = True
    async with member(broker, guarantee, HERE) as (_, delivery):
        running = asyncio.create_task(delivery.run())
        for offset in range(20):
            assert delivery.started(record(offset))
        for offset in (*range(10, 20), *range(10)):
            await delivery.finished(record(offset), outputs(b"%d" % offset, b"%d" % offset))
        async with asyncio.timeout(10):
            while broker.offsets.get(HERE) != 20:
                await asyncio.sleep(0.001)
                for _ in range(min(3, len(broker.waiting))):
                    broker.acknowledge(len(broker.waiting) // 2)
        running.cancel()
    seen = set()
    for entry in broker.log:
        entries = entry if isinstance(entry[0], tuple) else (entry,)
        seen |= {int(one[1]) for one in entries if one[0] == "output"}
        for one in entries:
            assert one[0] == "output" or seen >= set(range(one[2]))


async def test_a_commit_that_a_rebalance_refuses_is_made_up_for(broker):
    """It is no error, and committed the next time."""
    async with member(broker, "at_least_once", HERE) as (source, delivery):
        assert delivery.started(record(0))
        await delivery.finished(record(0), [])
        broker.commit_error = CommitFailedError()
        assert not await delivery.drain(0.01)
        assert (broker.offsets, source.outages.is_out) == ({}, False)
        broker.commit_error = None
        assert await delivery.drain(5)
        assert broker.offsets == {HERE: 1}


async def test_fresh_records_read_ahead_of_a_backlog_wait_for_it(broker):
    """With a partition read in two places, nothing behind the split is committed before all that lies before it."""
    async with member(broker, "at_least_once", HERE) as (_, delivery):
        delivery.split(HERE, 1, 100)
        for offset in (100, 40):
            assert delivery.started(record(offset))
        await delivery.finished(record(100), outputs(b"fresh"))
        assert not await delivery.drain(0.01)
        assert broker.offsets == {}
        await delivery.finished(record(40), outputs(b"old"))
        assert await delivery.drain(5)
        assert broker.offsets == {HERE: 41}
        delivery.earlier_read(HERE, 1)
        assert await delivery.drain(5)
        assert broker.offsets == {HERE: 101}


async def test_outputs_and_the_offset_behind_them_are_one_transaction(broker):
    """Readers see all outputs of a transaction and the offset after them, or nothing."""
    async with member(broker, "exactly_once", HERE, THERE) as (_, delivery):
        for offset in range(4):
            for partition in (HERE, THERE):
                assert delivery.started(record(offset, partition))
        for offset in (1, 0, 3, 2):
            for partition in (HERE, THERE):
                await delivery.finished(record(offset, partition), outputs(b"%d" % offset))
            await turns()
        assert await delivery.drain(5)
    here = [entry for entry in broker.log if HERE in entry[-1]]
    assert here == [
        (("output", b"0"), ("output", b"1"), ("offset", HERE, 2)),
        (("output", b"2"), ("output", b"3"), ("offset", HERE, 4)),
    ]
    assert len(broker.log) == 4


@pytest.mark.parametrize("outcome", ["lost", "unknown"])
async def test_a_transaction_of_unknown_outcome_is_neither_lost_nor_repeated(broker, outcome):
    """The committed offset tells whether it was committed; it is repeated only if not."""
    told = []
    async with member(broker, "exactly_once", HERE) as (_, delivery):
        for offset in range(2):
            assert delivery.started(record(offset))
            await delivery.finished(record(offset), outputs(b"%d" % offset), lambda: told.append("delivered"))
            assert await delivery.drain(5)
            broker.commit_failures.append(outcome)
    assert (broker.outputs, broker.offsets, told) == ([b"0", b"1"], {HERE: 2}, ["delivered"] * 2)


async def test_a_lane_that_was_fenced_off_takes_its_id_back_and_repeats_the_transaction(broker):
    """After another producer held the id for a moment, nothing is lost or repeated."""
    async with member(broker, "exactly_once", HERE) as (_, delivery):
        assert delivery.started(record(0))
        async with TransactionalSink(KafkaSettings(), "group.in.0"):
            await delivery.finished(record(0), outputs(b"0"))
            assert await delivery.drain(5)
    assert (broker.outputs, broker.offsets) == ([b"0"], {HERE: 1})


async def test_an_offset_of_before_a_reset_does_not_tell_that_a_transaction_took_place(broker):
    """It is larger than that of any record there is."""
    broker.offsets[HERE] = 1_000
    async with member(broker, "exactly_once", HERE) as (source, delivery):
        await source._recover({HERE: 1_000})
        broker.commit_failures.append("lost")
        assert delivery.started(record(0, epoch=2))
        await delivery.finished(record(0, epoch=2), outputs(b"0"))
        assert await delivery.drain(5)
    assert (broker.outputs, broker.offsets) == ([b"0"], {HERE: 1})


async def answer_two_and_take_the_second_back(broker, delivery):
    """Records 0 and 1 are answered and confirmed; then the group's offset is before 1, and the lane learns of it with
    record 2.
    """
    for offset in range(2):
        assert delivery.started(record(offset))
        await delivery.finished(record(offset), outputs(b"%d" % offset))
        assert await delivery.drain(5)
    assert delivery.started(record(2))
    broker.offsets[HERE] = 1
    async with TransactionalSink(KafkaSettings(), "group.in.0"):
        await delivery.finished(record(2), outputs(b"2"))
        async with asyncio.timeout(10):
            await delivery.idle()  # nobody waits for what the lane will not write any more


async def test_a_confirmed_transaction_that_the_broker_lost_is_no_part_of_the_offset(broker):
    """A commit was confirmed and the group's offset is before it: reading goes on from there, in an assignment of its
    own. What the lane had not written yet belongs to that one too.
    """
    async with member(broker, "exactly_once", HERE) as (source, delivery):
        await answer_two_and_take_the_second_back(broker, delivery)
        await source.poll(timeout_ms=0)
        assert (source.epoch(HERE), source.starts) == (2, {HERE: 1})
        assert not delivery.started(record(2))
        for offset in (1, 2):
            assert delivery.started(record(offset, epoch=2))
            await delivery.finished(record(offset, epoch=2), outputs(b"%d" % offset))
        assert await delivery.drain(5)
    assert (broker.outputs, broker.offsets) == ([b"0", b"1", b"1", b"2"], {HERE: 3})


async def test_what_was_confirmed_to_the_last_owner_and_lost_is_read_again(broker):
    """This member has confirmed nothing yet: that the group's offset is before the one that it began with tells it."""
    broker.offsets[HERE] = 2
    async with member(broker, "exactly_once", HERE) as (source, delivery):
        assert delivery.started(record(2))
        broker.offsets[HERE] = 1
        async with TransactionalSink(KafkaSettings(), "group.in.0"):
            await delivery.finished(record(2), outputs(b"2"))
            async with asyncio.timeout(10):
                await delivery.idle()
        await source.poll(timeout_ms=0)
        assert (source.epoch(HERE), source.starts) == (2, {HERE: 1})
    assert (broker.outputs, broker.offsets) == ([], {HERE: 1})


@asynccontextmanager
async def member_that_begins_again(broker):
    """The broker has taken back its transaction of record 1, and the lane knows. It has attempts noted."""
    attempts = PartitionAttempts(None, 0, 10)
    async with member(broker, "exactly_once", HERE) as (source, delivery):
        delivery.begin_attempts(HERE, 0, attempts)
        await answer_two_and_take_the_second_back(broker, delivery)
        yield source, delivery, attempts


async def test_who_begins_again_keeps_what_is_known_of_attempts(broker):
    """The note in the group is this member's own and no sign of a death. Another note does not move the offset."""
    async with member_that_begins_again(broker) as (source, delivery, attempts):
        await source.poll(timeout_ms=0)
        assert delivery.attempts_of(HERE) is attempts
        await delivery.commit_note(HERE)
        assert broker.offsets == {HERE: 1}


async def test_a_rebalance_ends_what_was_to_begin_again(broker):
    """What the partition's next owner leaves there is news, also to who had it before."""
    async with member_that_begins_again(broker) as (source, delivery, _):
        await source.take_away(HERE)
        await source.give(HERE)
        epoch = source.epoch(HERE)
        await source.poll(timeout_ms=0)
        assert (source.epoch(HERE), delivery.attempts_of(HERE)) == (epoch, None)


async def test_an_offset_of_an_assignment_that_is_over_moves_no_position(broker):
    """While the group was asked where to begin again, the partition went."""
    async with member_that_begins_again(broker) as (source, _, _attempts):
        broker.offset_gate.clear()
        poll = asyncio.create_task(source.poll(timeout_ms=0))
        await turns()
        before = source.starts
        await source.take_away(HERE)
        broker.offset_gate.set()
        await poll
        assert source.starts == before == {HERE: 0}


async def test_a_transaction_that_fails_again_and_again_is_repeated_until_it_succeeds(broker):
    """However often it fails, while the partition is ours nothing is lost, repeated or given up."""
    broker.commit_failures.extend(["lost", "lost", "lost", "lost", "unknown"])
    async with member(broker, "exactly_once", HERE) as (_, delivery):
        for offset in range(2):
            assert delivery.started(record(offset))
            await delivery.finished(record(offset), outputs(b"%d" % offset))
        assert await delivery.drain(30)
    assert (broker.outputs, broker.offsets) == ([b"0", b"1"], {HERE: 2})


@BOTH
async def test_a_record_whose_outputs_are_too_large_can_be_finished_with_others(broker, guarantee):
    """Nothing of the first attempt is written."""
    async with member(broker, guarantee, HERE, max_record_bytes=2_000, batch_bytes=2_000) as (_, delivery):
        assert delivery.started(record(0))
        with pytest.raises(RecordTooLarge):
            await delivery.finished(record(0), outputs(b"fits", b"x" * 2_000))
        await delivery.finished(record(0), outputs(b"short"))
        assert await delivery.drain(5)
    assert (broker.outputs, broker.offsets) == ([b"short"], {HERE: 1})


async def test_a_backlog_goes_into_transactions_of_limited_size(broker):
    """However many records are done at once, no transaction holds more than a thousand of them."""
    async with member(broker, "exactly_once", HERE) as (_, delivery):
        for offset in range(1_500):
            assert delivery.started(record(offset))
        for offset in reversed(range(1_500)):
            await delivery.finished(record(offset), outputs(b"%d" % offset))
        assert await delivery.drain(30)
    assert [len(entry) - 1 for entry in broker.log] == [1_000, 500]


async def test_what_raises_inside_a_transaction_takes_it_back_and_the_sink_goes_on(broker):
    """Nothing of the failed block can be read; the next one can."""
    async with TransactionalSink(KafkaSettings(), "id") as sink:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what raises
            async with sink.transaction() as transaction:
                await transaction.send(*outputs(b"half"))
                raise ZeroDivisionError
        async with sink.transaction() as transaction:
            await transaction.send(*outputs(b"whole"))
    assert broker.outputs == [b"whole"]


async def answer(broker, refuses):
    """Until cancelled the broker answers whatever waits; what `refuses` says is too large."""
    while True:
        await turns(5)
        while broker.waiting:
            if refuses(broker.waiting[0][0]):
                broker.refuse(MessageSizeTooLargeError())
            else:
                broker.acknowledge()


async def test_a_refused_output_is_written_by_itself_then_differently_then_not_at_all(broker):
    """At least once: those in its batch are only written again; every record ends, one with a line in the log."""
    broker.holds = True
    told = []
    async with member(broker, "at_least_once", HERE) as (_, delivery):
        for offset in range(3):
            assert delivery.started(record(offset))
        await delivery.finished(record(0), outputs(b"in its batch"))
        await delivery.finished(
            record(1),
            outputs(b"huge"),
            lambda: told.append("delivered"),
            iter([outputs(b"huge too"), outputs(b"small")]),
        )
        await delivery.finished(record(2), outputs(b"huge"), alternatives=[outputs(b"huge letter")])
        await turns()
        while broker.waiting:
            broker.refuse(MessageSizeTooLargeError())
        answering = asyncio.create_task(answer(broker, lambda value: value.startswith(b"huge")))
        assert await delivery.drain(30)
        answering.cancel()
        assert (delivery.given_up, told) == (1, ["delivered"])
    assert (sorted(broker.outputs), broker.offsets) == ([b"in its batch", b"small"], {HERE: 3})


async def test_outputs_that_finish_together_count_with_their_batch_and_are_refused_with_it(broker):
    """At least once: nothing is done before its batch is acknowledged; of a refused batch only one has another end."""
    broker.holds = True
    told = []
    async with member(broker, "at_least_once", HERE) as (_, delivery):
        for offset in range(20):
            assert delivery.started(record(offset))
        for offset in range(20):
            value = b"huge" if offset == 7 else b"%d" % offset
            await delivery.finished(
                record(offset), outputs(value), partial(told.append, offset), iter([outputs(b"smaller")])
            )
        await turns()
        for number in range(19):
            broker.acknowledge(0 if number < 7 else 1)  # all but the huge one
        await turns()
        assert (told, delivery.in_flight()) == ([], 20)
        broker.refuse(MessageSizeTooLargeError())
        answering = asyncio.create_task(answer(broker, lambda value: value == b"huge"))
        assert await delivery.drain(30)
        answering.cancel()
    assert (sorted(told), broker.offsets) == (list(range(20)), {HERE: 20})
    assert {b"smaller", *(b"%d" % offset for offset in range(20) if offset != 7)} == set(broker.outputs)


async def test_a_record_refused_in_a_transaction_keeps_no_other_back(broker):
    """Exactly once: the transaction is repeated in halves, until one record is left to be written differently or not at
    all; the others are written once.
    """
    broker.too_large = {b"3", b"6", b"letter 6"}
    told = []
    async with member(broker, "exactly_once", HERE) as (_, delivery):
        for offset in range(9):
            assert delivery.started(record(offset))
        for offset in reversed(range(9)):
            await delivery.finished(
                record(offset),
                outputs(b"%d" % offset),
                partial(told.append, offset),
                iter([outputs(b"letter %d" % offset)]),
            )
        assert await delivery.drain(30)
        assert delivery.given_up == 1
    written = [b"0", b"1", b"2", b"letter 3", b"4", b"5", b"7", b"8"]
    assert (broker.outputs, broker.offsets, told) == (written, {HERE: 9}, list(range(9)))


@pytest.mark.parametrize(
    "error", [KafkaTimeoutError(), NotLeaderForPartitionError(), GroupAuthorizationFailedError("group")]
)
async def test_commits_that_the_broker_does_not_answer_are_made_up_for(broker, error):
    """At least once: `run` goes on and says what it waits for; the offset is committed once the broker answers."""
    async with member(broker, "at_least_once", HERE) as (source, delivery):
        running = asyncio.create_task(delivery.run())
        assert delivery.started(record(0))
        broker.commit_error = error
        await delivery.finished(record(0), [])
        assert not await delivery.drain(0.05)
        assert source.outages.is_out
        assert not running.done()
        broker.commit_error = None
        assert await delivery.drain(5)
        assert not source.outages.is_out
        running.cancel()
    assert broker.offsets == {HERE: 1}


async def test_records_of_a_failed_transaction_leave_no_tracebacks(broker):
    """Nobody asks any more what became of each of them; the transaction's own error says it all."""
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    broker.holds = True
    async with TransactionalSink(KafkaSettings(), "id") as sink:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what raises
            async with sink.transaction() as transaction:
                await transaction.send(*outputs(b"half"))
                raise ZeroDivisionError
        broker.refuse(ProducerFenced())
        await turns()
        del transaction
        gc.collect()
    assert complaints == []
