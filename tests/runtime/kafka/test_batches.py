"""Records grouped into batches of one partition each."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import BrokerUnreachable, TopicMissing
from runtime.kafka.batches import Batch, batched, count_partitions, enqueue
from runtime.records import OutRecord

PARTITIONS = {"a": 4, "b": 1}
RECORDS = st.lists(
    st.builds(
        OutRecord,
        topic=st.sampled_from(sorted(PARTITIONS)),
        key=st.sampled_from([b"", b"k", b"other", b"\xff" * 20]),
        value=st.none() | st.binary(max_size=300),
        headers=st.lists(st.tuples(st.sampled_from(["h", "ünicode"]), st.binary(max_size=20)), max_size=3).map(tuple),
        partition=st.none() | st.just(0),
    ),
    max_size=40,
)
SIZES = st.integers(100, 2_000)


@given(records=RECORDS, size=SIZES)
def test_every_record_travels_once_and_the_order_within_a_partition_stays(records, size):
    """Batches name the places of their records, so that outcomes find back to them."""
    batches = batched(records, PARTITIONS, size)
    assert sorted(place for batch in batches for place in batch.places) == list(range(len(records)))
    for batch in batches:
        assert batch.records == tuple(records[place] for place in batch.places)
        assert {record.topic for record in batch.records} == {batch.topic}
    for target in {(batch.topic, batch.partition) for batch in batches}:
        places = [place for batch in batches if (batch.topic, batch.partition) == target for place in batch.places]
        assert places == sorted(places)


@given(records=RECORDS, size=SIZES)
def test_a_key_goes_where_the_library_sends_it(records, size):
    """Otherwise a compacted topic would keep two records of one key; a partition that is named is kept."""
    for batch in batched(records, PARTITIONS, size):
        partitions = list(range(PARTITIONS[batch.topic]))
        for record in batch.records:
            chosen = DefaultPartitioner()(record.key, partitions, partitions)
            assert batch.partition == (chosen if record.partition is None else record.partition)


@given(records=RECORDS, size=SIZES)
def test_a_batch_fits_into_the_librarys(records, size):
    """Headers and Kafka's own bytes included; only a single record may be larger."""
    for batch in batched(records, PARTITIONS, size):
        builder = BatchBuilder(size, 0)
        for record in batch.records:
            added = builder.append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers))
            assert added is not None
        assert builder.size() <= size or len(batch.records) == 1


def test_small_records_share_a_batch():
    """What it is for: a thousand records of one partition are a few batches, not a thousand."""
    records = [OutRecord("b", b"%d" % number, b"x" * 100) for number in range(1_000)]
    assert len(batched(records, PARTITIONS, 262_144)) == 1
    assert len(batched(records, PARTITIONS, 65_536)) == 3


class Client:
    """Of a producer that knows no topic; how a broker answers when it is asked, and how many partitions it tells of."""

    def __init__(self, answers, partitions=None):
        self.client = self.cluster = self
        self.answers = answers
        self.partitions = partitions

    async def force_metadata_update(self):
        if self.answers is None:
            await asyncio.Event().wait()
        return self.answers

    def partitions_for_topic(self, _topic):
        return self.partitions

    async def partitions_for(self, _topic):
        raise UnknownTopicOrPartitionError

    async def send(self, *_, **__):
        raise UnknownTopicOrPartitionError


@pytest.mark.parametrize(
    ("client", "error", "words"),
    [
        (Client(answers=True), TopicMissing, "does not exist"),
        (Client(answers=False), BrokerUnreachable, "no answer in time"),
        (Client(answers=True, partitions={0}), BrokerUnreachable, "no answer in time"),
        (Client(answers=None), BrokerUnreachable, "no answer in time"),
    ],
    ids=["it answers", "it is silent", "it answers again", "the client was closed"],
)
async def test_a_silent_broker_is_not_taken_for_a_missing_topic(client, error, words, monkeypatch):
    """A person would look for the topic; and what waits for a broker would not wait."""
    monkeypatch.setattr("runtime.kafka.batches._ANSWER_LIMIT_S", 0.05)
    with pytest.raises(error, match=f"writing to t: .*{words}"):
        await enqueue(client, Batch((OutRecord("t", b"k", b"v"),)))
    with pytest.raises(error, match=words):
        await count_partitions(client, {"t"})
