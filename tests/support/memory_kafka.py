"""An in-memory stand-in for aiokafka and its broker: the test decides what is acknowledged, refused or lost.

It replaces the client library only; sinks, sources, offsets and deliveries around it are the product's. Unlike the
embedded broker it keeps offsets sent in transactions, rolls transactions back and fences producers.
"""

from __future__ import annotations

import asyncio
from collections import deque

from aiokafka import TopicPartition as VendorPartition
from aiokafka.errors import IllegalOperation, KafkaTimeoutError, MessageSizeTooLargeError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata
from aiokafka.util import commit_structure_validate

from runtime.kafka import RecordSource
from runtime.records import TopicPartition


class MemoryBroker:
    """The broker's log, and the acknowledgements that wait for the test.

    Attributes:
        log: everything that became readable, in order: ("output", value) and ("offset", partition, next offset).
            What one transaction made readable is one entry: a tuple of them.
        waiting: acknowledgements held back, oldest first, by `holds`.
        holds: whether acknowledgements wait for `acknowledge` or `refuse`.
        commit_failures: for the next commits of transactions: "lost" (it did not happen) or "unknown" (it did, but
            the answer never came).
        too_large: values that it refuses in transactions.
        commit_error: what committing offsets outside transactions raises; None: it succeeds.
        metadata: the text beside a partition's committed offset.
        end: the offset after every partition's last record.
        commit_gate: while it is not set, commits outside transactions do not arrive.
        offset_gate: while it is not set, nobody learns a committed offset.
    """

    def __init__(self):
        self.log = []
        self.offsets = {}
        self.metadata = {}
        self.end = 0
        self.waiting = deque()
        self.holds = False
        self.commit_failures = deque()
        self.too_large = frozenset()
        self.commit_error = None
        self.commit_gate = asyncio.Event()
        self.commit_gate.set()
        self.offset_gate = asyncio.Event()
        self.offset_gate.set()
        self.holders = {}

    @property
    def outputs(self):
        """The values that can be read, in order."""
        entries = [part for entry in self.log for part in (entry if isinstance(entry[0], tuple) else (entry,))]
        return [entry[1] for entry in entries if entry[0] == "output"]

    def acknowledge(self, index=0):
        """The broker has the record."""
        value, future = self.waiting[index]
        del self.waiting[index]
        if value is not None:
            self.log.append(("output", value))
        if not future.done():  # who asked may be gone by now
            future.set_result(None)

    def refuse(self, error, index=0):
        """The broker will not have the record."""
        _, future = self.waiting[index]
        del self.waiting[index]
        if not future.done():
            future.set_exception(error)

    def sent(self, value):
        """The acknowledgement of a new record; `value` None: the record belongs to a transaction."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((value, future))
        if not self.holds:
            self.acknowledge(len(self.waiting) - 1)
        return future

    def producer(self, **arguments):
        """Replaces `AIOKafkaProducer`."""
        return _Producer(self, arguments.get("transactional_id"))


class _Producer:
    def __init__(self, broker, transactional_id):
        self._broker = broker
        self._id = transactional_id
        self._open = None
        self._noted = {}

    async def start(self):
        if self._id is not None:
            self._broker.holders[self._id] = self

    async def stop(self):
        self._open = None

    async def send(self, _topic, value, **_):
        if self._id is None:
            return self._broker.sent(value)
        self._in_transaction().append(("output", value))
        acknowledged = self._broker.sent(None)
        if value in self._broker.too_large:
            acknowledged = asyncio.get_running_loop().create_future()
            acknowledged.set_exception(MessageSizeTooLargeError())
        return acknowledged

    async def partitions_for(self, _topic):
        return {0}

    def create_batch(self):
        return _Batch()

    async def send_batch(self, batch, topic, *, partition):
        del partition
        return asyncio.gather(*[await self.send(topic, value) for value in batch.values])

    async def begin_transaction(self):
        if self._open is not None:
            raise IllegalOperation("a transaction is open")
        self._check_holder()
        self._open = []

    async def send_offsets_to_transaction(self, offsets, _group_id):
        for partition, (offset, metadata) in commit_structure_validate(offsets).items():
            self._in_transaction().append(("offset", TopicPartition(*partition), offset))
            self._noted[TopicPartition(*partition)] = metadata

    async def abort_transaction(self):
        self._in_transaction()
        self._open = None

    async def commit_transaction(self):
        entries = tuple(self._in_transaction())
        failure = self._broker.commit_failures.popleft() if self._broker.commit_failures else None
        if failure != "lost" and entries:
            self._broker.log.append(entries)
            self._broker.metadata |= self._noted
            self._broker.offsets |= {partition: offset for kind, partition, *rest in entries if rest for offset in rest}
        if failure is not None:
            raise KafkaTimeoutError
        self._open = None

    def _in_transaction(self):
        self._check_holder()
        if self._open is None:
            raise IllegalOperation("no transaction is open")
        return self._open

    def _check_holder(self):
        if self._broker.holders.get(self._id) is not self:
            raise ProducerFenced


class _Batch:
    """Records that are sent together; acknowledged and refused one by one, so that tests can tell them apart."""

    def __init__(self):
        self.values = []

    def append(self, *, value, **_):
        self.values.append(value)
        return value or b"null"

    def close(self):
        """Nothing is added any more."""


class MemorySource(RecordSource):
    """A group member whose partitions the test assigns and revokes; the test makes the records itself."""

    def __init__(self, settings, topic, group, broker):
        super().__init__(settings, [topic], group)
        self._broker = broker

    async def start(self, hooks=None, backlog=None):
        """Joins, without partitions yet."""
        self._hooks, self._backlog = hooks, backlog
        self._consumer = _Consumer(self._broker)

    @property
    def membership(self):
        """What the group thinks of this member."""
        return self._consumer._coordinator

    @property
    def starts(self):
        """Where reading starts, per partition."""
        return dict(self._consumer.sought)

    async def give(self, *partitions):
        """A rebalance assigns these in addition. The group has confirmed this member."""
        self._consumer.assigned |= {VendorPartition(*partition) for partition in partitions}
        self.membership.member_id, self.membership.excluded = "member", False
        await self._assigned(frozenset(partitions))
        self._raise_failure()

    async def take_away(self, *partitions):
        """A rebalance revokes these; commits are accepted until this is through."""
        await self._revoked(frozenset(partitions))
        self._consumer.assigned -= {VendorPartition(*partition) for partition in partitions}
        self._raise_failure()


class _Coordinator:
    """The group's view of one member.

    Attributes:
        member_id: empty once the member has learnt that it is none.
        excluded: whether the group has excluded it, which it learns by its next heartbeat.
        silent: whether the group does not answer.
        heartbeats: how many have been answered.
        last_heartbeat: the one after which the group excludes it; None: it does not.
    """

    def __init__(self, broker):
        self._broker = broker
        self.member_id = "member"
        self.excluded = False
        self.silent = False
        self.heartbeats = 0
        self.last_heartbeat = None

    async def fetch_committed_offsets(self, partitions):
        await asyncio.sleep(0)
        ours = {partition: TopicPartition(*partition) for partition in partitions}
        return {
            partition: OffsetAndMetadata(self._broker.offsets.get(own, -1), self._broker.metadata.get(own, ""))
            for partition, own in ours.items()
        }

    async def ensure_coordinator_known(self):
        await asyncio.sleep(0)

    async def _do_heartbeat(self):
        await asyncio.sleep(0)
        if self.silent:
            return False
        if self.excluded:
            self.member_id = ""
            return False
        self.heartbeats += 1
        self.excluded = self.heartbeats == self.last_heartbeat
        return True


class _Consumer:
    def __init__(self, broker):
        self._broker = broker
        self._coordinator = _Coordinator(broker)
        self.assigned = set()
        self.paused_now = set()
        self.sought = {}

    def assignment(self):
        return frozenset(self.assigned)

    def pause(self, *partitions):
        self.paused_now |= set(partitions)

    def resume(self, *partitions):
        self.paused_now -= set(partitions)

    def paused(self):
        return frozenset(self.paused_now)

    def seek(self, partition, offset):
        self.sought[TopicPartition(*partition)] = offset

    async def seek_to_beginning(self, partition):
        self.seek(partition, 0)

    async def getmany(self, timeout_ms, max_records):  # noqa: ARG002 - the test makes the records itself
        await asyncio.sleep(0)
        return {}

    async def committed(self, partition):
        await self._broker.offset_gate.wait()
        return self._broker.offsets.get(TopicPartition(*partition))

    async def end_offsets(self, partitions):
        return dict.fromkeys(partitions, self._broker.end)

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, 0)

    async def commit(self, offsets):
        await self._broker.commit_gate.wait()
        if self._broker.commit_error is not None:
            raise self._broker.commit_error
        for partition, (offset, metadata) in commit_structure_validate(offsets).items():
            self._broker.offsets[TopicPartition(*partition)] = offset
            self._broker.metadata[TopicPartition(*partition)] = metadata
            self._broker.log.append(("offset", TopicPartition(*partition), offset))

    async def stop(self):
        """Leaves the group."""
        self.assigned = set()


async def turns(count=100):
    """Lets pending tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)
