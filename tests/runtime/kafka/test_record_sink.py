"""What becomes of records that the broker refuses, on an in-memory client."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
)
from memory_kafka import MemoryBroker, turns

from runtime.clock import SystemClock
from runtime.errors import DeliveryFailed, NotAuthorized, RecordTooLarge
from runtime.kafka import RecordSink
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness
from runtime.records import OutRecord
from runtime.settings import KafkaSettings


@pytest.fixture
def broker(monkeypatch):
    """A broker in memory, in aiokafka's place, that answers when the test says so."""
    memory = MemoryBroker()
    memory.holds = True
    monkeypatch.setattr("runtime.kafka.sink.AIOKafkaProducer", memory.producer)
    monkeypatch.setattr("runtime.kafka.record_sink._RENEWAL_PAUSE_S", 0.0)
    monkeypatch.setattr("runtime.kafka.record_sink._RETRY_PAUSE_S", 0.0)
    return memory


@pytest.fixture
def readiness():
    """Of the program that writes."""
    return Readiness()


def patient(readiness):
    """A sink that waits outages out."""
    return RecordSink(KafkaSettings(), Outages(readiness, SystemClock()))


def record(number):
    """One record."""
    return OutRecord("t", b"k", b"%d" % number)


@pytest.mark.parametrize(
    "refusal",
    [
        TopicAuthorizationFailedError("t"),
        OutOfOrderSequenceNumber(),
        KafkaError("the sender died"),
        KafkaConnectionError("gone"),
    ],
)
async def test_what_the_broker_refuses_is_sent_again_with_all_that_follows(broker, readiness, refusal):
    """The order stays: the last record of a key remains the last. The program is not ready until it is delivered."""
    async with patient(readiness) as sink:
        deliveries = [await sink.send(record(number)) for number in range(3)]
        broker.acknowledge()
        for _ in range(2):
            broker.refuse(refusal)
        await turns()
        assert str(refusal) in readiness.reasons()["broker"]
        assert not deliveries[1].done()
        deliveries.append(await sink.send(record(3)))
        while broker.waiting:
            broker.acknowledge()
        await asyncio.gather(*deliveries)
    assert broker.outputs == [b"0", b"1", b"2", b"3"]
    assert readiness.is_ready


async def test_a_record_too_large_for_the_broker_fails_alone(broker, readiness):
    """Others go on with a new producer: the old one's sequence numbers have a gap."""
    async with patient(readiness) as sink:
        large, small = await sink.send(record(0)), await sink.send(record(1))
        broker.refuse(MessageSizeTooLargeError())
        broker.refuse(OutOfOrderSequenceNumber())
        with pytest.raises(RecordTooLarge):
            await large
        await turns()
        broker.acknowledge()
        await small
    assert broker.outputs == [b"1"]


async def test_without_outages_a_refusal_is_final(broker):
    """Nothing after it may be taken for delivered."""
    async with RecordSink(KafkaSettings()) as sink:
        delivery = await sink.send(record(0))
        broker.refuse(TopicAuthorizationFailedError("t"))
        with pytest.raises(NotAuthorized):
            await delivery
        with pytest.raises(DeliveryFailed):
            await sink.send(record(1))


@pytest.mark.usefixtures("broker")
async def test_stopping_tells_what_was_not_delivered(readiness):
    """Nobody waits for ever for a record that will not be sent any more."""
    async with patient(readiness) as sink:
        delivery = await sink.send(record(0))
    with pytest.raises(DeliveryFailed):
        await delivery


async def test_many_records_at_once_are_delivered_or_refused_by_batch(broker, readiness):
    """Each batch tells which of the records it holds; a refused one does not fail the others."""
    records = [OutRecord("t", b"k", b"%d" % number) for number in range(3)]
    async with patient(readiness) as sink:
        [(first, refused)] = await sink.send_all(records)
        [(second, delivered)] = await sink.send_all([record(3)])
        assert sink.in_flight == 4
        for _ in first.records:
            broker.refuse(MessageSizeTooLargeError())
        broker.refuse(OutOfOrderSequenceNumber())
        with pytest.raises(RecordTooLarge):
            await refused
        await turns()
        broker.acknowledge()
        await delivered
    assert (first.places, second.places) == ((0, 1, 2), (0,))
    assert broker.outputs == [b"3"]


async def test_a_batch_that_was_refused_for_another_reason_is_sent_again_whole(broker, readiness):
    """In its order, before what came after it."""
    async with patient(readiness) as sink:
        [(_, together)] = await sink.send_all([record(number) for number in range(3)])
        alone = await sink.send(record(3))
        for _ in range(4):
            broker.refuse(TopicAuthorizationFailedError("t"))
        await turns()
        while broker.waiting:
            broker.acknowledge()
        await asyncio.gather(together, alone)
    assert broker.outputs == [b"0", b"1", b"2", b"3"]
