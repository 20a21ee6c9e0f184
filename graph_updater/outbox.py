"""What has moved but is not known to be published yet: filled by leader and standby alike, emptied in different ways.

The leader publishes it. A standby keeps it until the group's committed offsets tell that the leader has, and so has
at hand what to publish first should it take over: nothing is missing, and nothing old is published again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from runtime.records import OutRecord, TopicPartition

T = TypeVar("T")
Frontier = Mapping[TopicPartition, int]
Committed = Mapping[TopicPartition, int | None]


class DeadLetter(NamedTuple):
    """A letter ready to be sent, and the record that it is for."""

    source: TopicPartition
    offset: int
    letter: OutRecord

    def is_covered_by(self, committed: Committed) -> bool:
        """Whether a leader that committed these offsets has sent it."""
        return (committed.get(self.source) or 0) > self.offset


@dataclass(frozen=True, eq=False)
class Parcel:
    """The outcome of the stream up to a place.

    Attributes:
        frontier: next offset to be read per partition; everything before it has had its effect.
        users: ids whose state moved, or that left.
        items: the same for items.
        dead_letters: what could not be taken in.
        everything: whether it names all states.
        event_times_ms: when the interactions in it happened, for the measure of freshness.
    """

    frontier: Frontier
    users: Sequence[str] = ()
    items: Sequence[str] = ()
    dead_letters: Sequence[DeadLetter] = ()
    everything: bool = False
    event_times_ms: Sequence[int] = ()

    def without(self, committed: Committed) -> Parcel | None:
        """What a leader that committed these offsets has not published of it; None if nothing is left. A parcel of
        everything stays: it is there because nobody knows what was published.
        """
        if not self.everything and all(
            (committed.get(partition) or 0) >= offset for partition, offset in self.frontier.items()
        ):
            return None
        return replace(self, dead_letters=[one for one in self.dead_letters if not one.is_covered_by(committed)])

    def split(self, size: int) -> list[Parcel]:
        """Parts of at most `size` records, to be published in this order: states, then dead letters. Only parts after
        the last state carry a frontier, each up to the first dead letter that is still to come: wherever this is
        interrupted, what is published again are states, which does no harm, and never a dead letter.
        """
        if len(self.users) + len(self.items) + len(self.dead_letters) <= size:
            return [self]
        users = [Parcel({}, users=part) for part in _cut(self.users, size)]
        items = [Parcel({}, items=part) for part in _cut(self.items, size)]
        return [*users, *items, *self._letters_in_parts(size)]

    def _letters_in_parts(self, size: int) -> list[Parcel]:
        parts = []
        frontier = dict(self.frontier)
        for letters in reversed(list(_cut(self.dead_letters, size)) or [[]]):
            parts.append(Parcel(dict(frontier), dead_letters=letters))
            for letter in letters:
                frontier[letter.source] = min(frontier.get(letter.source, letter.offset), letter.offset)
        return parts[::-1]


@dataclass
class Outbox:
    """Parcels in the order of the stream.

    Attributes:
        everything: whether all states are to be published, whatever moved: after a rebuild nobody knows what the
            topics hold.
    """

    everything: bool = False
    _parcels: list[Parcel] = field(default_factory=list)
    _seen: Committed | None = None

    def add(self, parcel: Parcel) -> None:
        """Puts a parcel behind the others."""
        self._parcels.append(parcel)

    def contents(self) -> Parcel | None:
        """All parcels as one, which takes their place, to be published together; None if there is none."""
        if len(self._parcels) > 1:
            self._parcels = [_together(self._parcels)]
        return self._parcels[0] if self._parcels else None

    def published(self, parcel: Parcel) -> None:
        """Takes out what `contents` gave, now that it is published."""
        self._parcels = [waiting for waiting in self._parcels if waiting is not parcel]
        self.everything &= not parcel.everything

    def drop_covered(self, committed: Committed) -> None:
        """Drops what the committed offsets cover."""
        rest = (parcel.without(committed) for parcel in self._parcels)
        self._parcels = [parcel for parcel in rest if parcel is not None]

    def watch_leader(self, committed: Committed) -> None:
        """What a standby does with each look at the committed offsets: drops what is covered; and where the offsets
        advance there is a leader, who has published everything before the first of them.
        """
        if self._seen is not None and committed != self._seen:
            self.everything = False
        self._seen = committed
        self.drop_covered(committed)

    def __len__(self) -> int:
        return len(self._parcels)


def _together(parcels: Sequence[Parcel]) -> Parcel:
    return Parcel(
        frontier=parcels[-1].frontier,
        users=list(dict.fromkeys(name for parcel in parcels for name in parcel.users)),
        items=list(dict.fromkeys(name for parcel in parcels for name in parcel.items)),
        dead_letters=[letter for parcel in parcels for letter in parcel.dead_letters],
        everything=any(parcel.everything for parcel in parcels),
        event_times_ms=[time for parcel in parcels for time in parcel.event_times_ms],
    )


def _cut(names: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (names[start : start + size] for start in range(0, len(names), size))
