"""Bounded memory at any backlog: partitions with too much in flight rest, while polling goes on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from runtime.records import TopicPartition


class PausableSource(Protocol):
    """What of a record source is needed here."""

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions read now."""

    def paused(self) -> frozenset[TopicPartition]:
        """Those of them that rest."""

    def pause(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Lets partitions rest."""

    def resume(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Ends their rest."""


class InFlight(Protocol):
    """What of a delivery is needed here."""

    def in_flight(self, partitions: Iterable[TopicPartition] | None = None) -> int:
        """Records taken in and not yet done."""


def hold_back(source: PausableSource, delivery: InFlight, max_in_flight: int) -> int:
    """Pauses each partition that has its share of `max_in_flight` in flight, resumes it at half of that.

    Every partition has the same share, so that a backlog in one does not keep the fresh requests of another waiting.

    Returns:
        How many partitions rest now.
    """
    assigned = source.assignment()
    if not assigned:
        return 0
    share = max(1, max_in_flight // len(assigned))
    paused = source.paused() & assigned
    full = [partition for partition in assigned - paused if delivery.in_flight([partition]) >= share]
    rested = [partition for partition in paused if delivery.in_flight([partition]) <= share // 2]
    if full:
        source.pause(full)
    if rested:
        source.resume(rested)
    return len(paused) + len(full) - len(rested)
