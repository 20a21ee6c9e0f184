"""State changes awaiting confirmed publication. Leader and standby both fill the outbox, and empty it differently.

The leader publishes the batches. A standby keeps them until the group's committed offsets show that the leader has
published them. Should it take over, it publishes exactly what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from runtime.records import OutRecord, TopicPartition

T = TypeVar("T")
Offsets = Mapping[TopicPartition, int]
CommittedOffsets = Mapping[TopicPartition, int | None]


class DeadLetter(NamedTuple):
    """A letter ready to be sent, and the record that it is for."""

    source: TopicPartition
    offset: int
    letter: OutRecord

    def is_covered_by(self, committed: CommittedOffsets) -> bool:
        """Whether a leader that committed these offsets has sent it."""
        return (committed.get(self.source) or 0) > self.offset


@dataclass(frozen=True, eq=False)
class StateBatch:
    """The changes that the records up to some offsets have made.

    Attributes:
        offsets: next offset to be read per partition; all records before it are in the state.
        users: ids of users whose state changed, or that left.
        items: the same for items.
        dead_letters: records that could not be read.
        full_republish: whether it names all states.
        event_times_ms: event times of its interactions, to measure freshness.
    """

    offsets: Offsets
    users: Sequence[str] = ()
    items: Sequence[str] = ()
    dead_letters: Sequence[DeadLetter] = ()
    full_republish: bool = False
    event_times_ms: Sequence[int] = ()

    def without(self, committed: CommittedOffsets) -> StateBatch | None:
        """What a leader that committed these offsets has not published of it; None if nothing is left.

        A full republish stays: it is there because nobody knows what was published.
        """
        if not self.full_republish and all(
            (committed.get(partition) or 0) >= offset for partition, offset in self.offsets.items()
        ):
            return None
        return replace(self, dead_letters=[one for one in self.dead_letters if not one.is_covered_by(committed)])

    def split(self, size: int) -> list[StateBatch]:
        """Parts of at most `size` records, to be published in this order: states, then dead letters.

        Only the parts after the last state carry offsets, each up to the first dead letter that is still to come.
        After an interruption states may be published again, which does no harm, but never a dead letter.
        """
        if len(self.users) + len(self.items) + len(self.dead_letters) <= size:
            return [self]
        users = [StateBatch({}, users=part) for part in _cut(self.users, size)]
        items = [StateBatch({}, items=part) for part in _cut(self.items, size)]
        return [*users, *items, *self._letters_in_parts(size)]

    def _letters_in_parts(self, size: int) -> list[StateBatch]:
        parts = []
        offsets = dict(self.offsets)
        for letters in reversed(list(_cut(self.dead_letters, size)) or [[]]):
            parts.append(StateBatch(dict(offsets), dead_letters=letters))
            for letter in letters:
                offsets[letter.source] = min(offsets.get(letter.source, letter.offset), letter.offset)
        return parts[::-1]


@dataclass
class Outbox:
    """Batches in the order of the stream.

    Attributes:
        full_republish: whether all states are to be published, changed or not: after a rebuild nobody knows what
            the topics hold.
    """

    full_republish: bool = False
    _batches: list[StateBatch] = field(default_factory=list)
    _seen: CommittedOffsets | None = None

    def add(self, batch: StateBatch) -> None:
        """Puts a batch behind the others."""
        self._batches.append(batch)

    def contents(self) -> StateBatch | None:
        """All batches merged into one, which replaces them; None if there are none."""
        if len(self._batches) > 1:
            self._batches = [_together(self._batches)]
        return self._batches[0] if self._batches else None

    def published(self, batch: StateBatch) -> None:
        """Removes the batch from `contents`, now that it is published."""
        self._batches = [waiting for waiting in self._batches if waiting is not batch]
        self.full_republish &= not batch.full_republish

    def drop_covered(self, committed: CommittedOffsets) -> None:
        """Drops what the committed offsets cover."""
        rest = (batch.without(committed) for batch in self._batches)
        self._batches = [batch for batch in rest if batch is not None]

    def watch_leader(self, committed: CommittedOffsets) -> None:
        """Drops what the leader has published, for a standby.

        Offsets that advance prove that a leader is at work, which has published all states if that was needed.
        """
        if self._seen is not None and committed != self._seen:
            self.full_republish = False
        self._seen = committed
        self.drop_covered(committed)

    def __len__(self) -> int:
        return len(self._batches)


def _together(batches: Sequence[StateBatch]) -> StateBatch:
    return StateBatch(
        offsets=batches[-1].offsets,
        users=list(dict.fromkeys(name for batch in batches for name in batch.users)),
        items=list(dict.fromkeys(name for batch in batches for name in batch.items)),
        dead_letters=[letter for batch in batches for letter in batch.dead_letters],
        full_republish=any(batch.full_republish for batch in batches),
        event_times_ms=[time for batch in batches for time in batch.event_times_ms],
    )


def _cut(names: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (names[start : start + size] for start in range(0, len(names), size))
