"""A consumer group member: polls records, commits offsets explicitly, calls hooks at every rebalance."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

import structlog
from aiokafka import TopicPartition as VendorPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from runtime.kafka.backlog import Backlog
from runtime.kafka.reader import OutOfRange, PartitionReader, StartFrom
from runtime.kafka.topics import require_topics
from runtime.kafka.translation import translate, translated
from runtime.records import Record, TopicPartition
from runtime.settings import KafkaSettings

_Hook = Callable[[frozenset[TopicPartition]], Awaitable[None]]
log = structlog.get_logger(__name__)


class RebalanceHooks(Protocol):
    """Called when partitions come and go. Every rebalance revokes all partitions, then assigns the new ones."""

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Finish and commit work in flight. Called while commits are still accepted; cancelled after a time limit."""

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Prepare for these partitions. None of their records is read before this returns."""


class RecordSource(PartitionReader):
    """Reads topics as a member of a consumer group.

    Args:
        settings: how to reach Kafka.
        topics: what to read; all of them must exist.
        group_id: members of one group share the partitions.
        start_from: where a partition without a committed offset begins.
        out_of_range: what to do when the committed offset is no longer retained.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Iterable[str],
        group_id: str,
        *,
        start_from: StartFrom = "earliest",
        out_of_range: OutOfRange = "earliest",
    ) -> None:
        super().__init__(settings, topics, group_id=group_id, start_from=start_from, out_of_range=out_of_range)
        self.group_id = group_id
        self._hooks: RebalanceHooks | None = None
        self._backlog: Backlog | None = None
        self._settled = asyncio.Event()
        self._failure: BaseException | None = None

    async def start(self, hooks: RebalanceHooks | None = None, backlog: Backlog | None = None) -> None:
        """Joins the group; returns once partitions have been assigned and the hooks have seen them.

        Args:
            hooks: the owner's.
            backlog: reads the old records of newly assigned partitions in parallel; None: everything is read in order.

        Raises:
            TopicMissing: if one of the topics is not there.
            BrokerError: if the group cannot be joined.
        """
        cluster = await require_topics(self._settings, self._topics)
        self._hooks = hooks
        self._backlog = backlog
        self._consumer = self._make_consumer(cluster)
        self._consumer.subscribe(self._topics, listener=_Listener(self._revoked, self._assigned))
        limit_s = self._settings.connect_timeout_s + self._settings.session_timeout_ms / 1000
        try:
            with translated(f"joining the group {self.group_id} on {', '.join(self._topics)}"):
                async with asyncio.timeout(limit_s + self._settings.revocation_limit_s):
                    await self._consumer.start()
                    await self._settled.wait()
            self._raise_failure()
        except BaseException:
            await self.stop()
            raise

    async def poll(self, *, max_records: int = 500, timeout_ms: int = 100) -> list[Record]:
        """As in `PartitionReader`; also raises what a rebalance hook raised."""
        records = await super().poll(max_records=max_records, timeout_ms=timeout_ms)
        self._raise_failure()
        return records

    def backlog_lag(self) -> dict[TopicPartition, int]:
        """Records of the backlog that have not been read yet, per partition."""
        return {} if self._backlog is None else self._backlog.records_left()

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Commits the next offset of each partition that is still ours; returns those committed.

        A rebalance may revoke partitions at any time. What could not be committed for that reason is read again by the
        next owner, so this is no error.

        Raises:
            BrokerError: if the broker refuses for another reason or does not answer in time.
        """
        assigned = self._consumer.assignment()
        theirs = {VendorPartition(*partition): offset for partition, offset in offsets.items()}
        ours_still = {partition: offset for partition, offset in theirs.items() if partition in assigned}
        if not ours_still:
            return {}
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                await self._consumer.commit(ours_still)
        except (CommitFailedError, IllegalStateError) as error:
            log.info("commit refused by a rebalance", group=self.group_id, cause=type(error).__name__)
            return {}
        except (KafkaError, TimeoutError) as error:
            raise translate(error, f"committing offsets of the group {self.group_id}") from error
        return {TopicPartition(*partition): offset for partition, offset in ours_still.items()}

    async def _revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self._settled.clear()
        if self._backlog is not None:
            await self._backlog.revoke(partitions)
        if self._hooks is None or not partitions:
            return
        try:
            async with asyncio.timeout(self._settings.revocation_limit_s):
                await self._hooks.on_revoked(partitions)
        except TimeoutError:
            log.warning("work in flight outlasted a rebalance and will be processed again", group=self.group_id)
        except Exception as error:  # noqa: BLE001 - aiokafka would log and forget it; the next poll raises it
            self._failure = error

    async def _assigned(self, partitions: frozenset[TopicPartition]) -> None:
        # Nothing can have been fetched yet: the library has not yielded between the assignment and this pause.
        self.pause(partitions)
        try:
            with translated(f"preparing for {len(partitions)} partitions of {', '.join(self._topics)}"):
                async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                    if self._hooks is not None:
                        await self._hooks.on_assigned(partitions)
                    await self._start_at_committed(partitions)
                    if self._backlog is not None:
                        await self._backlog.assign(self, partitions)
        except Exception as error:  # noqa: BLE001 - aiokafka would log and forget it; the next poll raises it
            self._failure = error
        else:
            self.resume(partitions)
        self._settled.set()

    async def _start_at_committed(self, partitions: Iterable[TopicPartition]) -> None:
        """Seeks to the offsets committed as of now. The library asked before the hooks ran, when an earlier owner might
        still have been committing; by now the hooks have fenced that owner.
        """
        for partition, offset in (await self.committed(partitions)).items():
            if offset is None:
                await self._seek_end_of_range(partition, self._start_from)
            else:
                self.seek(partition, offset)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


class _Listener(ConsumerRebalanceListener):
    """Turns aiokafka's calls and partitions into ours."""

    def __init__(self, revoked: _Hook, assigned: _Hook) -> None:
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: Iterable[VendorPartition]) -> None:
        await self._revoked(frozenset(TopicPartition(*partition) for partition in revoked))

    async def on_partitions_assigned(self, assigned: Iterable[VendorPartition]) -> None:
        await self._assigned(frozenset(TopicPartition(*partition) for partition in assigned))
