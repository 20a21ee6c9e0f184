"""Users by partition: a worker holds the users of the partitions that its group gives it, and all items.

Requests and users' states are keyed by user id, so that a user's lie in partitions of the same number. Kafka Streams
calls such a pair a table beside a global table. Everything here belongs to the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from functools import partial
from time import monotonic
from typing import Final, Protocol

import structlog

from runtime.delivery import Delivery
from runtime.errors import SettingsError
from runtime.kafka import Holding, TopicFollower, WarmAssignor, partition_of
from runtime.process.allocator import return_freed_memory
from runtime.records import TopicPartition
from worker.compute import ComputeThread
from worker.state_store.tables import Tables

ADDED: Final = (
    "{topic} has {now} partitions now, {then} when the worker started. The worker ends, so that it is started anew and "
    "compares the topics again"
)
_RETRY_S: Final = 1.0
"""A broker that does not answer keeps the states of all partitions waiting as long as it is asked."""
_REMOVALS: Final = 4
"""Portions of users that leave between two polls."""
log = structlog.get_logger(__name__)


class UserPartitions:
    """The partitions whose users a worker is to hold, and those that the tables in use have been filled with.

    Args:
        count: partitions of the requests, and of the users' states.
        standby_count: how many to hold beyond the worker's own, so that they are warm when another worker ends.

    Attributes:
        assigned: those of the worker's own requests; None before the group is joined.
        standby: those held for others.
    """

    def __init__(self, count: int, standby_count: int = 0) -> None:
        self.count = count
        self.assigned: frozenset[int] | None = None
        self.standby: frozenset[int] = frozenset()
        self._standby_count = standby_count
        self._serving: HeldPartitions | None = None
        self._when_read: list[Callable[[], object]] = []

    @property
    def wanted(self) -> frozenset[int] | None:
        """Those to hold; None while that is not known."""
        return None if self.assigned is None else self.assigned | self.standby

    @property
    def awaited(self) -> frozenset[int]:
        """The worker's own that have not been read to their end yet."""
        return (self.assigned or frozenset()) - self.read

    @property
    def read(self) -> frozenset[int]:
        """Those whose users the tables in use hold."""
        return frozenset() if self._serving is None else self._serving.read

    def partition_of(self, user_id: str) -> int:
        """Where the user's state stands."""
        return partition_of(user_id.encode(), self.count)

    def assign(self, assigned: frozenset[int], standby: frozenset[int]) -> None:
        """Takes over what the group has decided."""
        self.assigned, self.standby = assigned, standby - assigned

    def serve(self, held: HeldPartitions) -> None:
        """These are the partitions of the tables in use from now on."""
        self._serving = held
        self.tell()

    async def all_read(self) -> None:
        """Returns once the users of all the worker's own partitions have been read."""
        await self._until(lambda: not self.awaited)

    async def covered_by(self, held: HeldPartitions) -> None:
        """Returns once other tables, which are not in use yet, lack no own partition that those in use hold."""
        await self._until(lambda: (self.assigned or frozenset()) & self.read <= held.read)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        changed = asyncio.Event()
        self._when_read.append(changed.set)
        try:
            while not is_so():
                changed.clear()
                await changed.wait()
        finally:
            self._when_read.remove(changed.set)

    def when_read(self, callback: Callable[[], object]) -> None:
        """Calls back whenever `read` may have changed."""
        self._when_read.append(callback)

    def tell(self) -> None:
        """Calls those who want to know."""
        for callback in list(self._when_read):
            callback()

    def holding(self) -> Holding:
        """What this worker says when it joins its group."""
        return Holding(sorted(self.assigned or ()), sorted(self.read), self._standby_count)


class HeldPartitions:
    """Makes one worker's tables hold the users of the wanted partitions, and no others.

    Args:
        partitions: tell what is wanted.
        topic: of the users' states.
        follower: reads it, and follows the partitions of `begun_with` already.
        tables: owned by `thread`.
        thread: the compute thread.
        begun_with: those that the tables hold in part or whole, as from a copy.

    Attributes:
        read: partitions whose users the tables hold, searchable.
        given_up: how many partitions have been given up; a copy of the tables is of no use if this number has changed
            while it was made.
    """

    def __init__(
        self,
        partitions: UserPartitions,
        topic: str,
        follower: TopicFollower,
        tables: Tables,
        thread: ComputeThread,
        begun_with: frozenset[int],
    ) -> None:
        self._partitions = partitions
        self._topic = topic
        self._follower = follower
        self._tables = tables
        self._thread = thread
        self._followed = begun_with
        self._leaving: dict[int, Generator[int, None, None]] = {}
        self._asks_again_s = 0.0
        self.read: frozenset[int] = frozenset()
        self.given_up = 0

    @property
    def is_leaving(self) -> bool:
        """Whether users of partitions that were given up are still in the tables."""
        return bool(self._leaving)

    @property
    def is_reading(self) -> bool:
        """Whether there are partitions that are followed and not read yet. From any thread."""
        return len(self.read) < len(self._followed)

    async def adjust(self) -> frozenset[TopicPartition]:
        """Follows the wanted partitions. To be called before each poll: users of others leave a few at each call, so
        that states are read meanwhile, and a partition that comes back is read once the last of them has left.

        Returns:
            The partitions that are followed no more.

        Raises:
            BrokerError: the broker refuses.
            SettingsError: the topic has more partitions than at the start.
        """
        await self._remove_some()
        if (count := self._follower.count(self._topic)) > self._partitions.count:
            raise SettingsError(ADDED.format(topic=self._topic, now=count, then=self._partitions.count))
        if self._partitions.wanted is None:
            return frozenset()
        wanted = self._wanted_now() - self._leaving.keys()
        if wanted == self._followed or self._asks_again_s > monotonic():
            return frozenset()
        gone, come = self._followed - wanted, wanted - self._followed
        if not await self._follower.choose(self._topic, wanted):
            self._asks_again_s = monotonic() + _RETRY_S  # what is followed is read meanwhile
            return frozenset()
        log.info("holding users of other partitions", reading=sorted(come), given_up=sorted(gone))
        self._followed = wanted
        self.read -= gone
        self._leaving |= {partition: self._tables.remove_partition(partition) for partition in sorted(gone)}
        self.given_up += len(gone)
        return frozenset(TopicPartition(self._topic, partition) for partition in gone)

    def _wanted_now(self) -> frozenset[int]:
        """Those that requests wait for are read before others are begun with."""
        assigned, wanted = self._partitions.assigned or frozenset(), self._partitions.wanted or frozenset()
        return wanted if assigned <= self.read else assigned | (wanted & self._followed)

    async def _remove_some(self) -> None:
        """Those first whose partition is wanted again."""
        for _ in range(_REMOVALS):
            if not self._leaving:
                return
            partition = min(self._leaving, key=lambda one: one not in (self._partitions.wanted or ()))
            steps = self._leaving[partition]
            if await self._thread.call(partial(next, steps, None)) is None:
                del self._leaving[partition]

    async def note_read(self) -> None:
        """To be called when everything polled so far has been applied. A partition counts as read once searches among
        its users are as quick as they will be.
        """
        read = frozenset(
            one for one in self._followed if not self._follower.is_behind(TopicPartition(self._topic, one))
        )
        if read == self.read:
            return
        if come := read - self.read:
            if await self._thread.call(self._search_is_awaited):
                return
            log.info("users of partitions read", partitions=sorted(come))
            await self._thread.call(return_freed_memory)
        self.read = read
        self._partitions.tell()

    def _search_is_awaited(self) -> bool:
        """In the compute thread. Where training fails there is nothing to wait for: search is slow then, and told."""
        return self._tables.search_awaited() is not None and not self._tables.user_index.training.pause_s


class AwaitingStates(Protocol):
    """What a rebalance needs of the requests that wait."""

    def close(self) -> None:
        """Lets all go on, and keeps no further one."""

    def open(self) -> None:
        """Keeps those that come from now on."""


class PartitionHooks:
    """What a worker does at a rebalance. Implements `runtime.kafka.RebalanceHooks`.

    Args:
        delivery: finishes what is in flight.
        partitions: learn what is assigned.
        assignor: knows what is to be held for others.
        owned: the partitions of the requests that are this worker's now.
        count: partitions of the requests' topic as of now.
        awaiting: keeps requests that wait for states.
    """

    def __init__(
        self,
        delivery: Delivery,
        partitions: UserPartitions,
        assignor: WarmAssignor,
        owned: Callable[[], frozenset[TopicPartition]],
        count: Callable[[], int],
        awaiting: AwaitingStates,
    ) -> None:
        self._delivery = delivery
        self._partitions = partitions
        self._assignor = assignor
        self._owned = owned
        self._count = count
        self._awaiting = awaiting

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Nothing waits for states any longer: the delivery waits for what is in flight. Users stay until it is known
        who gets their partition; mostly it is the same worker.
        """
        self._awaiting.close()
        await self._delivery.on_revoked(partitions)

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Also called for some of the partitions, where their offsets were out of range.

        Raises:
            SettingsError: the requests' topic has more partitions than at the start.
        """
        if (now := self._count()) > self._partitions.count:
            raise SettingsError(ADDED.format(topic="the topic of the requests", now=now, then=self._partitions.count))
        self._partitions.assign(frozenset(one.partition for one in self._owned()), self._assignor.standby)
        await self._delivery.on_assigned(partitions)
        self._awaiting.open()
