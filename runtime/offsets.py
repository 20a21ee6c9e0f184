"""Decides which offsets may be committed while records finish out of order. Pure; knows nothing of Kafka.

A partition's committable offset is the one after its longest unbroken run of finished records: committing anything
later would lose an unfinished record when the process dies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runtime.records import TopicPartition


class OffsetTracker:
    """Records in flight, per assigned partition.

    Every assignment of a partition has an epoch, a number that is never used again. Offsets of an epoch start in
    increasing order, with gaps (transaction markers, compaction). Calls about partitions that are not assigned (any
    more), or about another epoch than the present one, have no effect: their records are the next owner's, even if that
    is this process once more.
    """

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, PartitionProgress | SplitProgress] = {}
        self._epochs: dict[TopicPartition, int] = {}

    def assign(self, epochs: Mapping[TopicPartition, int]) -> None:
        """Starts tracking these partitions under these epochs, with nothing in flight."""
        self._epochs.update(epochs)
        self._partitions.update({partition: PartitionProgress() for partition in epochs})

    def split(self, partition: TopicPartition, epoch: int, offset: int) -> None:
        """From now on the partition is read in two places: up to this offset, and from it on. Only before any start."""
        if self._present(partition, epoch) is not None:
            self._partitions[partition] = SplitProgress(offset)

    def earlier_read(self, partition: TopicPartition, epoch: int) -> None:
        """Says that every record before the split has been started."""
        progress = self._present(partition, epoch)
        if isinstance(progress, SplitProgress):
            progress.earlier_is_read = True

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """Forgets these partitions."""
        for partition in partitions:
            self._partitions.pop(partition, None)
            self._epochs.pop(partition, None)

    def started(self, partition: TopicPartition, epoch: int, offset: int) -> bool:
        """Notes a record as in flight. False if its epoch is over: it should not be worked on."""
        progress = self._present(partition, epoch)
        if progress is None:
            return False
        progress.started(offset)
        return True

    def done(self, partition: TopicPartition, epoch: int, offset: int) -> bool:
        """Notes a record as finished: its outputs are delivered. False if it was not in flight."""
        progress = self._present(partition, epoch)
        return progress is not None and progress.done(offset)

    def is_in_flight(self, partition: TopicPartition, epoch: int, offset: int) -> bool:
        """Whether this record has been started in the present epoch and is not finished."""
        progress = self._present(partition, epoch)
        return progress is not None and progress.is_in_flight(offset)

    def committable(self) -> dict[TopicPartition, int]:
        """The next offset to be read, for each partition where it moved since `committed` was last told."""
        return {
            partition: progress.next_offset
            for partition, progress in self._partitions.items()
            if progress.next_offset > progress.committed_offset
        }

    def next_offset(self, partition: TopicPartition) -> int:
        """The next offset to be read; -1 before any record is done, or if the partition is not assigned."""
        progress = self._partitions.get(partition)
        return -1 if progress is None else progress.next_offset

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Notes what has been committed in the present epochs."""
        for partition, offset in offsets.items():
            progress = self._partitions.get(partition)
            if progress is not None:
                progress.committed_offset = max(progress.committed_offset, offset)

    def in_flight(self, partitions: Iterable[TopicPartition] | None = None) -> int:
        """Records started but not finished, of these partitions or of all."""
        chosen = self._partitions if partitions is None else partitions
        return sum(self._partitions[partition].in_flight for partition in chosen if partition in self._partitions)

    def _present(self, partition: TopicPartition, epoch: int) -> PartitionProgress | SplitProgress | None:
        """The progress of this epoch; None if it is over."""
        return self._partitions.get(partition) if self._epochs.get(partition) == epoch else None


class PartitionProgress:
    """One partition. Every operation is O(1), amortised.

    Attributes:
        in_flight: records started but not finished.
        next_offset: the one after the longest unbroken run of finished records; -1 before there is any.
        committed_offset: the highest told as committed; -1 before.
    """

    __slots__ = ("_finished", "committed_offset", "in_flight", "next_offset")

    def __init__(self) -> None:
        # Insertion order is offset order: the first entry is the oldest record that blocks the others.
        self._finished: dict[int, bool] = {}
        self.in_flight = 0
        self.next_offset = -1
        self.committed_offset = -1

    def started(self, offset: int) -> None:
        """Notes a record as in flight."""
        if offset < self.next_offset or offset in self._finished:
            return  # read again after a seek: finished already, or still in flight
        self._finished[offset] = False
        self.in_flight += 1

    def is_in_flight(self, offset: int) -> bool:
        """Whether the record has been started and is not finished."""
        return self._finished.get(offset) is False

    def done(self, offset: int) -> bool:
        """Notes a record as finished; one that is not in flight is left alone, and the answer is False."""
        if self._finished.get(offset, True):
            return False
        self._finished[offset] = True
        self.in_flight -= 1
        while self._finished:
            oldest = next(iter(self._finished))
            if not self._finished[oldest]:
                break
            del self._finished[oldest]
            self.next_offset = oldest + 1
        return True


class SplitProgress:
    """One partition that is read in two places at once. Records from the split on count only once every record before
    it is finished.

    Attributes:
        earlier_is_read: whether all records before the split have been started.
        committed_offset: as in `PartitionProgress`.
    """

    __slots__ = ("_earlier", "_later", "_split", "committed_offset", "earlier_is_read")

    def __init__(self, split: int) -> None:
        self._split = split
        self._earlier = PartitionProgress()
        self._later = PartitionProgress()
        self.earlier_is_read = False
        self.committed_offset = -1

    @property
    def in_flight(self) -> int:
        """As in `PartitionProgress`, for both places."""
        return self._earlier.in_flight + self._later.in_flight

    @property
    def next_offset(self) -> int:
        """As in `PartitionProgress`."""
        if self.earlier_is_read and not self._earlier.in_flight:
            return max(self._split, self._later.next_offset)
        return self._earlier.next_offset

    def started(self, offset: int) -> None:
        """Notes a record as in flight."""
        self._place(offset).started(offset)

    def is_in_flight(self, offset: int) -> bool:
        """Whether the record has been started and is not finished."""
        return self._place(offset).is_in_flight(offset)

    def done(self, offset: int) -> bool:
        """Notes a record as finished; one that is not in flight is left alone, and the answer is False."""
        return self._place(offset).done(offset)

    def _place(self, offset: int) -> PartitionProgress:
        return self._earlier if offset < self._split else self._later
