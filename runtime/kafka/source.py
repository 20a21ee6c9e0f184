"""A consumer group member: polls records, commits offsets explicitly, calls hooks at every rebalance."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import structlog
from aiokafka import TopicPartition as VendorPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from runtime.clock import SystemClock
from runtime.errors import BrokerError, BrokerUnreachable
from runtime.kafka.backlog import Backlog
from runtime.kafka.committing import vendor_offsets
from runtime.kafka.epochs import Epochs
from runtime.kafka.reader import OutOfRange, PartitionReader, StartFrom
from runtime.kafka.rebalance import RebalanceHooks, RebalanceListener
from runtime.kafka.topics import require_topics
from runtime.kafka.translation import translate, translated
from runtime.kafka.warm_assignor import WarmAssignor
from runtime.observability.outages import Outages, is_outage
from runtime.observability.readiness import Readiness
from runtime.records import Record, TopicPartition
from runtime.settings import KafkaSettings

_RETRY_S: Final = 0.5
log = structlog.get_logger(__name__)


class LeftBehind(NamedTuple):
    """Where a partition's last owner has left it."""

    offset: int
    """The next one to be read."""
    metadata: str
    """The text beside it."""
    end: int
    """Offset after the last readable record."""


class RecordSource(PartitionReader):
    """Reads topics as a member of a consumer group.

    Records carry the epoch of the assignment that they were read in (`Epochs`). An epoch is over once the hooks have
    seen its revocation.

    Args:
        settings: how to reach Kafka.
        topics: what to read; all of them must exist.
        group_id: members of one group share the partitions.
        start_from: where a partition without a committed offset begins.
        out_of_range: what to do when the committed offset is no longer retained.
        outages: where a broker that does not answer is noted; without it polls raise, and the log tells of the rest.
        assignor: shares the partitions among the group's members; None: in turn.

    Attributes:
        outages: as given, or some that nobody looks at.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Iterable[str],
        group_id: str,
        *,
        start_from: StartFrom = "earliest",
        out_of_range: OutOfRange = "earliest",
        outages: Outages | None = None,
        assignor: WarmAssignor | None = None,
    ) -> None:
        super().__init__(
            settings, topics, group_id=group_id, start_from=start_from, out_of_range=out_of_range, outages=outages
        )
        self.group_id = group_id
        self.outages = outages or Outages(Readiness(), SystemClock())
        self._assignor = assignor
        self._hooks: RebalanceHooks | None = None
        self._backlog: Backlog | None = None
        self._settled = asyncio.Event()
        self._failure: BaseException | None = None
        self._starting = False
        self._epochs = Epochs()
        self._preparing: frozenset[TopicPartition] = frozenset()
        self._to_begin_again: dict[TopicPartition, int] = {}  # and the epoch that ends with it
        self._committing = asyncio.Lock()
        self._commit_limit: asyncio.Timeout | None = None

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
        self._starting = True
        # In a group some of whose members know only the second, that one is used. The embedded broker takes only one.
        assignors = [one for one in (self._assignor, RoundRobinPartitionAssignor) if one is not None]
        assignors = assignors[:1] if cluster.is_embedded else assignors
        self._consumer = self._make_consumer(cluster, partition_assignment_strategy=assignors)
        self._consumer.subscribe(self._topics, listener=RebalanceListener(self._revoked, self._assigned))
        limit_s = self._settings.connect_timeout_s + self._settings.session_timeout_ms / 1000
        try:
            with translated(f"joining the group {self.group_id} on {', '.join(self._topics)}"):
                async with asyncio.timeout(limit_s + self._settings.revocation_limit_s):
                    await self._consumer.start()
                    while not self._settled.is_set():
                        self._coordinator.check_errors()  # the library tells errors only to those who poll
                        with suppress(TimeoutError):
                            await asyncio.wait_for(self._settled.wait(), _RETRY_S)
            self._raise_failure()
            self._starting = False
        except BaseException:
            await self.stop()
            raise

    async def poll(self, *, max_records: int = 500, timeout_ms: int = 100) -> list[Record]:
        """As in `PartitionReader`; also raises what a rebalance hook raised."""
        if self._to_begin_again:
            wanted, self._to_begin_again = self._to_begin_again, {}
            await self._renew(partition for partition, epoch in wanted.items() if self.epoch(partition) == epoch)
        records = await super().poll(max_records=max_records, timeout_ms=timeout_ms)
        self._raise_failure()
        return records

    def backlog_lag(self) -> dict[TopicPartition, int]:
        """Records of the backlog that have not been read yet, per partition."""
        return {} if self._backlog is None else self._backlog.records_left()

    def resume(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """As in `PartitionReader`; partitions that are still being prepared stay paused."""
        super().resume((self.assignment() if partitions is None else frozenset(partitions)) - self._preparing)

    def begin_again(self, partition: TopicPartition, epoch: int) -> None:
        """With the next `poll` a new assignment begins, at the group's offset; not if this epoch is over."""
        self._to_begin_again[partition] = epoch

    def epoch(self, partition: TopicPartition) -> int:
        """The number of the partition's present assignment; 0 if it is not assigned."""
        return self._epochs.of(partition)

    def first_offset(self, partition: TopicPartition) -> int:
        """The group's offset that its present assignment began with; 0 where the group had none, where that offset was
        out of range, and before it is known.
        """
        return self._epochs.first_offset(partition)

    async def commit(
        self, offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str] = MappingProxyType({})
    ) -> dict[TopicPartition, int]:
        """Commits the next offset of each partition that is still ours, with the text that is to stand beside it;
        returns those committed.

        A rebalance may revoke partitions at any time. What could not be committed for that reason is read again by the
        next owner, so this is no error. Commits take effect in the order of their calls, and none outlives its epoch:
        offsets never go back.

        Raises:
            BrokerError: if the broker refuses for another reason or does not answer in time.
        """
        epochs = {partition: self.epoch(partition) for partition in offsets}
        async with self._committing:
            present = {
                partition: offset for partition, offset in offsets.items() if self._epochs.stands(partition, epochs)
            }
            if not present or self._is_expelled:
                return {}
            try:
                async with asyncio.timeout(self._settings.request_timeout_ms / 1000) as self._commit_limit:
                    await self._consumer.commit(vendor_offsets(present, metadata))
            except (CommitFailedError, IllegalStateError) as error:
                log.info("commit refused by a rebalance", group=self.group_id, cause=type(error).__name__)
                return {}
            except (KafkaError, TimeoutError) as error:
                if not any(self._epochs.stands(one, epochs) for one in present):
                    return {}
                raise translate(error, f"committing offsets of the group {self.group_id}") from error
        return {one: offset for one, offset in present.items() if self._epochs.stands(one, epochs)}

    async def left_behind(self, partition: TopicPartition, first_read: int) -> LeftBehind:
        """What the group has committed for a partition that is ours, and where the partition ends now. Where nothing is
        committed reading began at the earliest record, or with the first one that was read.

        Raises:
            BrokerError: if the broker does not answer.
        """
        one = VendorPartition(*partition)
        with translated(f"asking for offsets of the group {self.group_id}"):
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                found = (await self._coordinator.fetch_committed_offsets([one])).get(one)
                end = (await self._consumer.end_offsets([one]))[one]
                if found is not None and found.offset >= 0:
                    return LeftBehind(found.offset, found.metadata or "", end)
                is_from_end = self._start_from == "latest"
                begin = first_read if is_from_end else (await self._consumer.beginning_offsets([one]))[one]
                return LeftBehind(begin, "", end)

    async def confirms(self, partition: TopicPartition, epoch: int) -> bool:
        """Asks the group whether this assignment still stands. A process that was frozen or cut off for longer than the
        session time-out believes so although the partition has another owner by now.

        Raises:
            BrokerError: if the group's coordinator does not answer.
        """
        if self.epoch(partition) != epoch or self._is_expelled:
            return False
        doing = f"confirming the membership in the group {self.group_id}"
        with translated(doing):
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                await self._coordinator.ensure_coordinator_known()
                answered = await self._coordinator._do_heartbeat()  # noqa: SLF001 - see _coordinator
        if not answered and not self._is_expelled:
            raise BrokerUnreachable(f"{doing}: its coordinator does not answer")
        return answered and self.epoch(partition) == epoch

    @property
    def _coordinator(self) -> Any:  # noqa: ANN401 - aiokafka carries no types
        """The client library's part that talks to the group. Only it knows the membership. A commit would ask the group
        as well, but it moves an offset, which an undecided transaction must be able to do after us.
        """
        return self._consumer._coordinator  # noqa: SLF001 - aiokafka offers no other way

    @property
    def _is_expelled(self) -> bool:
        """Whether the group has said that we are no member. The library would go on committing without a membership,
        and brokers accept that once the group has no member left.
        """
        return self._consumer is None or not self._coordinator.member_id

    async def _revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self._settled.clear()
        if self._backlog is not None:
            await self._backlog.revoke(partitions)
        try:
            async with asyncio.timeout(self._settings.revocation_limit_s):
                if self._hooks is not None and partitions:
                    await self._hooks.on_revoked(partitions)
        except TimeoutError:
            log.warning("work in flight outlasted a rebalance and will be processed again", group=self.group_id)
        except Exception as error:  # noqa: BLE001 - aiokafka would log and forget it; the next poll raises it
            self._failure = error
        finally:
            await self._end_epochs(partitions)

    async def _end_epochs(self, partitions: frozenset[TopicPartition]) -> None:
        """Ends them, and a commit in flight: the library would repeat it under the membership that comes next."""
        self._epochs.end(partitions)
        if self._committing.locked() and self._commit_limit is not None and not self._commit_limit.expired():
            self._commit_limit.reschedule(0)
        async with self._committing:
            pass

    async def _assigned(self, partitions: frozenset[TopicPartition]) -> None:
        # Nothing can have been fetched yet: the library fetches only once it knows the offsets, for which it asks.
        self.pause(partitions)
        self._epochs.begin(partitions)
        self._preparing = partitions
        try:
            is_ours = await self._until_answered(partial(self._prepare, partitions))
        except Exception as error:  # noqa: BLE001 - aiokafka would log and forget it; the next poll raises it
            self._failure = error
        else:
            if is_ours:
                self._preparing = frozenset()
                self.resume(partitions)
        self._settled.set()

    async def _prepare(self, partitions: frozenset[TopicPartition]) -> None:
        if self._hooks is not None:
            await self._hooks.on_assigned(partitions)
        await self._start_at_committed(partitions)
        if self._backlog is not None:
            await self._backlog.assign(self, partitions)

    async def _recover(self, offsets: Mapping[VendorPartition, int]) -> None:
        """As in `PartitionReader`. Offsets may begin anew, so an epoch begins, in which none is known yet."""
        await super()._recover(offsets)
        await self._renew((TopicPartition(*partition) for partition in offsets), at_committed=False)

    async def _renew(self, partitions: Iterable[TopicPartition], *, at_committed: bool = True) -> None:
        """Begins new epochs of partitions that are ours, where they are read now or at the group's offsets."""
        renewed = frozenset(partitions) & frozenset(self._epochs.present())
        if self._backlog is not None:
            await self._backlog.revoke(renewed)
        epochs = self._epochs.begin(renewed)

        async def prepare() -> None:
            still_ours = frozenset(partition for partition in renewed if self._epochs.stands(partition, epochs))
            if self._hooks is not None and still_ours:
                await self._hooks.on_assigned(still_ours)
            if at_committed:
                await self._start_at_committed(one for one in still_ours if self._epochs.stands(one, epochs))

        await self._until_answered(prepare)

    async def _until_answered(self, attempt: Callable[[], Awaitable[None]]) -> bool:
        """Makes everything ready for reading, however long the broker is away. False if the group has excluded us
        meanwhile: the next assignment begins anew.
        """
        activity = f"taking over partitions of {', '.join(self._topics)}"
        while True:
            try:
                with translated(activity):
                    async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                        await attempt()
            except BrokerError as error:
                if not is_outage(error) or (self._starting and not isinstance(error, BrokerUnreachable)):
                    raise
                self.outages.note(activity, error)
                await asyncio.sleep(_RETRY_S)
                if self._is_expelled:
                    self.outages.over(activity)
                    return False
            else:
                self.outages.over(activity)
                return True

    async def _start_at_committed(self, partitions: Iterable[TopicPartition]) -> None:
        """Seeks to the offsets committed as of now. The library asked before the hooks ran, when an earlier owner might
        still have been committing; by now the hooks have fenced that owner.
        """
        epochs = {partition: self.epoch(partition) for partition in partitions}
        for partition, offset in (await self.committed(epochs)).items():
            if not self._epochs.stands(partition, epochs):
                continue
            self._epochs.note_first_offset(partition, offset or 0)
            if offset is None:
                await self._seek_end_of_range(partition, self._start_from)
            else:
                self.seek(partition, offset)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
