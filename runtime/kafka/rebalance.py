"""What happens to a group member when partitions come and go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from aiokafka import TopicPartition as VendorPartition
from aiokafka.abc import ConsumerRebalanceListener

from runtime.records import TopicPartition

_Hook = Callable[[frozenset[TopicPartition]], Awaitable[None]]


class RebalanceHooks(Protocol):
    """Called when partitions come and go. Every rebalance revokes all partitions, then assigns the new ones."""

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Finish and commit work in flight. Called while commits are still accepted; cancelled after a time limit."""

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Prepare for these partitions. None of their records is read before this returns."""


class RebalanceListener(ConsumerRebalanceListener):
    """Turns aiokafka's calls and partitions into ours."""

    def __init__(self, revoked: _Hook, assigned: _Hook) -> None:
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: Iterable[VendorPartition]) -> None:
        """Called by the library."""
        await self._revoked(frozenset(TopicPartition(*partition) for partition in revoked))

    async def on_partitions_assigned(self, assigned: Iterable[VendorPartition]) -> None:
        """Called by the library."""
        await self._assigned(frozenset(TopicPartition(*partition) for partition in assigned))
