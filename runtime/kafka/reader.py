"""What group members and followers share: polling, pausing, positions, lag, a stop that cannot hang."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as VendorPartition
from aiokafka.errors import IllegalStateError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from runtime.errors import BrokerError, OffsetsOutOfRange
from runtime.kafka.connection import connection_arguments
from runtime.kafka.topics import Cluster
from runtime.kafka.translation import translate, translated
from runtime.observability.outages import Outages, is_outage
from runtime.records import Record, TopicPartition
from runtime.settings import KafkaSettings

StartFrom = Literal["earliest", "latest"]
OutOfRange = Literal["earliest", "latest", "raise"]
_REJOIN_POLL_S: Final = 1.0
"""How much longer than asked a poll may take: while a group rebalances the library waits without a limit."""
_RETRY_PAUSE_S: Final = 0.5
_QUIET_S: Final = 3.0
"""Reading goes on again once polls have raised nothing for this long: the library raises an error once, then tries
again in the background.
"""
log = structlog.get_logger(__name__)


class PartitionReader:
    """Base of `RecordSource` and `TopicFollower`.

    Isolation is always `read_committed`: records of aborted transactions are never seen. The client library never
    resets offsets, which it does silently; `out_of_range` decides what happens when one is out of range.

    With `outages` a broker that does not answer is waited out: polls note it there and return nothing meanwhile.
    Without, they raise.

    Attributes:
        resets: how many times a partition's offset was out of range and had to be reset.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Iterable[str],
        *,
        group_id: str | None,
        start_from: StartFrom,
        out_of_range: OutOfRange,
        outages: Outages | None = None,
    ) -> None:
        self._settings = settings
        self._outages = outages
        self._failed_at = 0.0
        self._topics = tuple(topics)
        self._start_from: StartFrom = start_from
        self._out_of_range: OutOfRange = out_of_range
        self._doing = f"reading {', '.join(self._topics)}"
        self._group_id = group_id
        self._consumer: Any = None
        self.resets = 0

    def _make_consumer(self, cluster: Cluster, **more: Any) -> AIOKafkaConsumer:  # noqa: ANN401 - aiokafka's arguments
        """Made at the start, as it binds itself to the running event loop."""
        settings = self._settings
        return AIOKafkaConsumer(
            **(connection_arguments(settings) | more),
            group_id=self._group_id,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.session_timeout_ms // 5,
            rebalance_timeout_ms=settings.session_timeout_ms + int(settings.revocation_limit_s * 1000),
            max_poll_interval_ms=settings.max_poll_interval_ms,
            check_crcs=not cluster.is_embedded,  # its transaction markers carry none
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
            max_partition_fetch_bytes=max(1_048_576, settings.max_record_bytes),
        )

    async def stop(self) -> None:
        """Leaves the group and closes; gives up after `stop_timeout_s`: the library's own stop can hang."""
        if self._consumer is None:
            return
        consumer, self._consumer = self._consumer, None
        if self._outages is not None:
            self._outages.over(self._doing)  # nobody would say so any more
        try:
            await asyncio.wait_for(consumer.stop(), self._settings.stop_timeout_s)
        except (TimeoutError, KafkaError) as error:
            log.warning("the consumer did not stop cleanly", topics=self._topics, cause=repr(error))

    async def poll(self, *, max_records: int = 500, timeout_ms: int = 100) -> list[Record]:
        """The next records, in order within each partition; an empty list if none came within `timeout_ms`.

        Keep calling it, also while every partition is paused: a member that does not poll loses its partitions. It may
        take a second longer than `timeout_ms` while the group rebalances.

        Raises:
            OffsetsOutOfRange: if the next offset is no longer retained and `out_of_range` is "raise".
            BrokerError: if the broker does not answer or refuses, and there are no `outages` to note it in.
        """
        try:
            records = await self._next_records(max_records, timeout_ms)
        except BrokerError as error:
            await self._wait_out(error)
            return []
        self._note_success(read=bool(records))
        return records

    async def _wait_out(self, error: BrokerError) -> None:
        """Notes an outage and pauses; raises the error if it is none, or if outages are not waited out here."""
        if self._outages is None or not is_outage(error):
            raise error
        self._failed_at = asyncio.get_running_loop().time()
        self._outages.note(self._doing, error)
        await asyncio.sleep(_RETRY_PAUSE_S)

    def _note_success(self, *, read: bool) -> None:
        if self._outages is None or not self._failed_at:
            return
        if read or asyncio.get_running_loop().time() - self._failed_at >= _QUIET_S:
            self._failed_at = 0.0
            self._outages.over(self._doing)

    async def _next_records(self, max_records: int, timeout_ms: int) -> list[Record]:
        try:
            batches = await self._fetched(max_records, timeout_ms)
        except NoOffsetForPartitionError as error:
            await self._seek_end_of_range(error.args[0], self._start_from)
            return []
        except OffsetOutOfRangeError as error:
            await self._recover(error.args[0])
            return []
        except KafkaError as error:
            raise translate(error, self._doing) from error
        return [
            Record(
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                key=record.key,
                value=record.value,
                headers=record.headers,
                timestamp_ms=record.timestamp,
                epoch=epoch,
            )
            for partition, batch in batches.items()
            for epoch in [self.epoch(_ours(partition))]
            for record in batch
        ]

    def epoch(self, partition: TopicPartition) -> int:  # noqa: ARG002 - for readers that are assigned partitions
        """The number of the partition's present assignment; 0 where partitions are not assigned by a group."""
        return 0

    async def _fetched(self, max_records: int, timeout_ms: int) -> Mapping[VendorPartition, Iterable[Any]]:
        """The library hands records out only after its last pause, so that the limit loses none."""
        try:
            async with asyncio.timeout(timeout_ms / 1000 + _REJOIN_POLL_S):
                fetched: Mapping[VendorPartition, Iterable[Any]] = await self._consumer.getmany(
                    timeout_ms=timeout_ms, max_records=max_records
                )
        except TimeoutError:
            return {}
        return fetched

    async def _recover(self, offsets: Mapping[VendorPartition, int]) -> None:
        lost = {_ours(partition): offset for partition, offset in offsets.items()}
        if self._out_of_range == "raise":
            raise OffsetsOutOfRange(lost)
        for partition, offset in lost.items():
            self.resets += 1
            log.warning(
                "offset out of range", partition=str(partition), offset=offset, going_on_from=self._out_of_range
            )
            await self._seek_end_of_range(partition, self._out_of_range)

    async def _seek_end_of_range(self, partition: TopicPartition | VendorPartition, end: StartFrom) -> None:
        vendor_partition = VendorPartition(*partition)
        if vendor_partition not in self._consumer.assignment():
            return
        seek = self._consumer.seek_to_beginning if end == "earliest" else self._consumer.seek_to_end
        with translated(f"going to the {end} offset of {partition}"):
            await seek(vendor_partition)

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions read now; changes with every rebalance."""
        if self._consumer is None:
            return frozenset()
        return frozenset(_ours(partition) for partition in self._consumer.assignment())

    def count(self, topic: str) -> int:
        """Partitions of a topic that is read, as far as the library has heard; 0 if it has not."""
        return len(self._consumer.partitions_for_topic(topic) or ())

    def pause(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Returns no more records of these partitions (None: of any) until `resume`; keep calling `poll`."""
        self._consumer.pause(*self._theirs(partitions))

    def resume(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Ends a pause. A rebalance ends all of them."""
        self._consumer.resume(*self._theirs(partitions))

    def paused(self) -> frozenset[TopicPartition]:
        """The partitions paused now."""
        if self._consumer is None:
            return frozenset()
        return frozenset(_ours(partition) for partition in self._consumer.paused())

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continues at this offset."""
        self._consumer.seek(VendorPartition(*partition), offset)

    async def positions(self) -> dict[TopicPartition, int]:
        """The next offset to be read, per assigned partition. Leaves out partitions taken away while asking."""
        found = {}
        for partition in self.assignment():
            try:
                found[partition] = await self._consumer.position(VendorPartition(*partition))
            except IllegalStateError:
                continue
        return found

    async def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        """The offsets that the reader's group has committed, directly or in transactions; None where there is none.

        Raises:
            BrokerError: if the broker cannot be asked.
        """
        wanted = list(partitions)
        with translated(f"asking for offsets of the group {self._group_id}"):
            # The library itself waits without a limit.
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                offsets = await asyncio.gather(*(self._consumer.committed(VendorPartition(*one)) for one in wanted))
        return dict(zip(wanted, offsets, strict=True))

    async def end_offsets(self) -> dict[TopicPartition, int]:
        """The offset after the last readable record, per assigned partition, as the broker has it now. The broker is
        asked even when none is assigned, so that an answer always means that it answers. Empty while not started.

        Raises:
            BrokerUnreachable: if the broker does not answer in time.
        """
        if self._consumer is None:
            return {}
        assigned = self._consumer.assignment()
        with translated(f"asking for the end of {', '.join(self._topics)}"):
            ends = await self._consumer.end_offsets(list(assigned) or [VendorPartition(self._topics[0], 0)])
        return {_ours(partition): offset for partition, offset in ends.items() if partition in assigned}

    async def first_since(self, time_ms: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset of each partition's first record written at that time (Unix milliseconds) or later; the end where
        all are older.

        Raises:
            BrokerError: if the broker cannot be asked.
        """
        wanted = [VendorPartition(*partition) for partition in partitions]
        with translated(f"asking for offsets by time in {', '.join(self._topics)}"):
            ends = await self._consumer.end_offsets(wanted)
            found = await self._consumer.offsets_for_times(dict.fromkeys(wanted, time_ms))
        return {
            _ours(partition): end if found[partition] is None else found[partition].offset
            for partition, end in ends.items()
        }

    def awaits_transactions(self) -> bool:
        """Whether an open transaction keeps records from being read that the last fetch has seen."""
        for partition in self._consumer.assignment():
            stable, end = self._consumer.last_stable_offset(partition), self._consumer.highwater(partition)
            if stable is not None and end is not None and 0 <= stable < end:
                return True
        return False

    def backlog_lag(self) -> dict[TopicPartition, int]:
        """Records before the position that are still being read as a backlog."""
        return {}

    async def lag(self) -> dict[TopicPartition, int]:
        """Records not read yet, per assigned partition.

        Raises:
            BrokerUnreachable: if the broker does not answer in time.
        """
        ends, positions = await self.end_offsets(), await self.positions()
        return {
            partition: max(0, ends[partition] - offset) for partition, offset in positions.items() if partition in ends
        }

    def _theirs(self, partitions: Iterable[TopicPartition] | None) -> list[VendorPartition]:
        """Partitions as aiokafka has them, without those that were taken away meanwhile."""
        assigned = self._consumer.assignment()
        wanted = assigned if partitions is None else {VendorPartition(*partition) for partition in partitions}
        return list(wanted & assigned)


def _ours(partition: VendorPartition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.partition)
