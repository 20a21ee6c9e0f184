"""Reads topics without a consumer group: all of their partitions, or those that are chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import structlog
from aiokafka import TopicPartition as VendorPartition

from runtime.errors import BrokerError, OffsetsOutOfRange
from runtime.kafka.reader import OutOfRange, PartitionReader, StartFrom
from runtime.kafka.topics import require_topics
from runtime.kafka.translation import translated
from runtime.observability.outages import Outages
from runtime.records import Record, TopicPartition
from runtime.settings import KafkaSettings

_QUIET_MS: Final = 2_000
"""A partition whose fetches return no record for this long has been read to its end, whatever the end offset says: only
transaction markers, aborted records or compacted ones may remain.
"""

log = structlog.get_logger(__name__)


class CommittedOffset(NamedTuple):
    """A group's next offset to be read in a partition, and the text beside it."""

    offset: int
    metadata: str


class TopicFollower(PartitionReader):
    """Reads all partitions of its topics, or those that are chosen, from given offsets or the start. Who else follows
    them makes no difference.

    Args:
        settings: how to reach Kafka.
        topics: what to read; all of them must exist.
        start_from: where reading begins: at the earliest or the latest records, or at given offsets, for example of a
            snapshot; partitions without one begin at the earliest.
        out_of_range: what to do when the next offset is not kept any more. `raise` (the default) also applies to
            offsets in `start_from`: state whose next records are gone cannot be brought up to date.
        group_id: the group whose offsets `committed` tells. It is not joined.
        outages: where a broker that does not answer is noted and waited out; None: polls raise.
        look_again_s: how often to look for partitions added to the topics; they are followed from their beginning.
        chosen: partitions of topics of which not all are followed; `choose` changes them.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Iterable[str],
        *,
        start_from: StartFrom | Mapping[TopicPartition, int] = "earliest",
        out_of_range: OutOfRange = "raise",
        group_id: str | None = None,
        outages: Outages | None = None,
        look_again_s: float = 60.0,
        chosen: Mapping[str, Collection[int]] = MappingProxyType({}),
    ) -> None:
        end: StartFrom = start_from if isinstance(start_from, str) else "earliest"
        super().__init__(
            settings, topics, group_id=group_id, start_from=end, out_of_range=out_of_range, outages=outages
        )
        self._start_offsets = {} if isinstance(start_from, str) else dict(start_from)
        self._unread: dict[TopicPartition, int] = {}
        self._to_read = 0
        self._seen: dict[TopicPartition, tuple[int, int]] = {}
        self._look_again_ms = int(look_again_s * 1000)
        self._chosen = {topic: frozenset(numbers) for topic, numbers in chosen.items()}

    async def start(self) -> None:
        """Assigns the partitions and notes where they end now.

        Raises:
            TopicMissing: if one of the topics is not there.
            OffsetsOutOfRange: if a start offset is not kept any more (or not yet there) and `out_of_range` is "raise".
            BrokerError: if the broker cannot be asked.
        """
        cluster = await require_topics(self._settings, self._topics)
        partitions = [
            VendorPartition(topic, number)
            for topic, count in cluster.partitions.items()
            for number in self._chosen.get(topic, range(count))
        ]
        self._consumer = self._make_consumer(cluster, metadata_max_age_ms=self._look_again_ms)
        try:
            with translated(f"preparing to follow {', '.join(self._topics)}"):
                await self._consumer.start()
            await self._follow(partitions, await self._starts_of(partitions, self._start_offsets))
        except BaseException:
            await self.stop()
            raise

    async def choose(self, topic: str, numbers: Iterable[int]) -> bool:
        """Follows these partitions of a topic, and no others of it, from now on. Those that come are read from their
        beginning; `is_behind` tells until they have been read to where they end now.

        Returns:
            Whether that is done; False if the broker does not answer, which is noted as an outage.

        Raises:
            BrokerError: the broker refuses, or does not answer and there are no `outages` to note it in.
        """
        wanted = [VendorPartition(topic, number) for number in sorted(set(numbers))]
        added = [one for one in wanted if one not in self._consumer.assignment()]
        try:
            starts = await self._starts_of(added, {})
        except BrokerError as error:
            await self._wait_out(error)
            return False
        self._chosen[topic] = frozenset(one.partition for one in wanted)
        for partition in [one for one in {**self._unread, **self._seen} if self._is_left_out(one)]:
            self._unread.pop(partition, None)
            self._seen.pop(partition, None)
        await self._follow([*(one for one in self._consumer.assignment() if one.topic != topic), *wanted], starts)
        return True

    def _is_left_out(self, partition: TopicPartition) -> bool:
        return partition.topic in self._chosen and partition.partition not in self._chosen[partition.topic]

    def is_behind(self, partition: TopicPartition) -> bool:
        """Whether records of the partition are still unread that were there when it came to be followed."""
        return partition in self._unread

    async def _starts_of(
        self, partitions: Sequence[VendorPartition], from_offsets: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, tuple[int, int]]:
        """Where reading of each partition starts, and where the partition ends now."""
        if not partitions:
            return {}
        with translated(f"preparing to follow {', '.join(self._topics)}"):
            begins = _by_ours(await self._consumer.beginning_offsets(partitions))
            ends = _by_ours(await self._consumer.end_offsets(partitions))
        starts = self._starts(begins, ends, from_offsets)
        return {partition: (starts[partition], end) for partition, end in ends.items()}

    async def _follow(
        self, partitions: Sequence[VendorPartition], starts: Mapping[TopicPartition, tuple[int, int]]
    ) -> None:
        """Reads these partitions from now on; those that were read before go on where they are."""
        before = await self.positions() if self._consumer.assignment() else {}
        paused = self.paused()
        self._consumer.assign(partitions)
        for partition in self.assignment():
            start, end = starts.get(partition, (0, 0))
            self.seek(partition, before.get(partition, start))
            if partition not in before and start < end:
                self._unread[partition] = end
                self._to_read += end - start
        self.pause(paused)

    def _starts(
        self,
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        from_offsets: Mapping[TopicPartition, int],
    ) -> dict[TopicPartition, int]:
        kept = {
            partition: offset
            for partition, offset in from_offsets.items()
            if partition in begins and begins[partition] <= offset <= ends[partition]
        }
        lost = {partition: offset for partition, offset in from_offsets.items() if partition not in kept}
        if lost and self._out_of_range == "raise":
            raise OffsetsOutOfRange(lost)
        self.resets += len(lost)
        default = begins if self._start_from == "earliest" else ends
        fallback = begins if self._out_of_range == "earliest" else ends
        return {
            partition: kept.get(partition, fallback[partition] if partition in lost else default[partition])
            for partition in begins
        }

    async def poll(self, *, max_records: int = 2_000, timeout_ms: int = 100) -> list[Record]:
        """As in `PartitionReader`; keeps `caught_up` current and follows partitions added meanwhile."""
        if added := self._added_partitions():
            await self._follow_added(added)
        records = await super().poll(max_records=max_records, timeout_ms=timeout_ms)
        if self._unread:
            await self._note_progress(idle=not records)
        return records

    async def committed_with_metadata(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, CommittedOffset]:
        """As `committed`, each with the text beside it; without the partitions that have none.

        Raises:
            BrokerError: if the broker cannot be asked.
        """
        wanted = [VendorPartition(*partition) for partition in partitions]
        coordinator = self._consumer._coordinator  # noqa: SLF001 - aiokafka itself tells the offsets alone
        with translated(f"asking for offsets of the group {self._group_id}"):
            # The library itself waits without a limit.
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                found = await coordinator.fetch_committed_offsets(wanted)
        return {
            TopicPartition(*partition): CommittedOffset(committed.offset, committed.metadata or "")
            for partition, committed in found.items()
            if committed.offset >= 0
        }

    @property
    def caught_up(self) -> bool:
        """Whether `poll` has returned everything that was there at the start."""
        return not self._unread

    def progress(self) -> tuple[int, int]:
        """Offsets read and offsets to read until caught up, as far as known."""
        left = sum(end - self._seen.get(partition, (end, 0))[0] for partition, end in self._unread.items())
        return self._to_read - left, self._to_read

    def _added_partitions(self) -> set[VendorPartition]:
        """Those that the library's metadata names and that are not followed yet. It refreshes them in the background,
        so that looking asks no broker and cannot fail.
        """
        whole = [topic for topic in self._topics if topic not in self._chosen]
        known = {topic: self._consumer.partitions_for_topic(topic) or () for topic in whole}
        named = {VendorPartition(topic, number) for topic, numbers in known.items() for number in numbers}
        return named.difference(self._consumer.assignment())

    async def _follow_added(self, added: Collection[VendorPartition]) -> None:
        """Without it, a table would lack new partitions forever and nothing would show it."""
        log.info("following added partitions", partitions=sorted(f"{topic}[{number}]" for topic, number in added))
        await self._follow([*self._consumer.assignment(), *added], {})

    async def _note_progress(self, *, idle: bool) -> None:
        positions = await self.positions()
        for partition, end in list(self._unread.items()):
            position = positions.get(partition, end)
            if position >= end or (idle and self._is_quiet(partition, position)):
                del self._unread[partition]

    def _is_quiet(self, partition: TopicPartition, position: int) -> bool:
        """Whether the broker has kept answering without new records. No answer proves nothing."""
        answered_ms = self._consumer.last_poll_timestamp(VendorPartition(*partition)) or 0
        before, since_ms = self._seen.get(partition, (-1, 0))
        if position != before or since_ms == 0:
            self._seen[partition] = (position, answered_ms)
            return False
        return answered_ms - since_ms >= _QUIET_MS


def _by_ours(offsets: Mapping[VendorPartition, int]) -> dict[TopicPartition, int]:
    return {TopicPartition(*partition): offset for partition, offset in offsets.items()}
