"""Numbers the assignments of partitions, and remembers where each of them began."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from runtime.records import TopicPartition


class Epochs:
    """Every assignment of a partition has an epoch, a number that grows with each of them. It tells what was begun
    before a rebalance from what was begun after it, also where the same member keeps the partition.
    """

    def __init__(self) -> None:
        self._last = 0
        self._present: dict[TopicPartition, int] = {}
        self._first_offsets: dict[TopicPartition, int] = {}

    def begin(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The new epoch of each partition. Where it begins is not known yet."""
        self._last += 1
        begun = dict.fromkeys(partitions, self._last)
        self._present.update(begun)
        for partition in begun:
            self._first_offsets.pop(partition, None)
        return begun

    def end(self, partitions: Iterable[TopicPartition]) -> None:
        """They are not assigned any more."""
        for partition in partitions:
            self._present.pop(partition, None)
            self._first_offsets.pop(partition, None)

    def present(self) -> Collection[TopicPartition]:
        """The partitions that are assigned."""
        return self._present.keys()

    def of(self, partition: TopicPartition) -> int:
        """The number of its present assignment; 0 if it is not assigned."""
        return self._present.get(partition, 0)

    def stands(self, partition: TopicPartition, epochs: Mapping[TopicPartition, int]) -> bool:
        """Whether its assignment is still the one that is named there."""
        return partition in self._present and self._present[partition] == epochs[partition]

    def note_first_offset(self, partition: TopicPartition, offset: int) -> None:
        """Notes the group's offset from which the present assignment is read."""
        self._first_offsets[partition] = offset

    def first_offset(self, partition: TopicPartition) -> int:
        """As noted; 0 where nothing is noted."""
        return self._first_offsets.get(partition, 0)
