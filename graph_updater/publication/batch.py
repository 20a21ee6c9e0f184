"""A batch: the changes that the records up to some offsets have made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from runtime.records import Headers, OutRecord, TopicPartition

Offsets = Mapping[TopicPartition, int]
CommittedOffsets = Mapping[TopicPartition, int | None]
_SPACE: Final = "space="
MIXED: Final = "mixed"
"""Stands for the space while a leader replaces embeddings of another one: the topics hold both."""


class DeadLetter(NamedTuple):
    """A letter ready to be sent, and the record that it is for."""

    source: TopicPartition
    offset: int
    letter: OutRecord

    def is_covered_by(self, committed: CommittedOffsets) -> bool:
        """Whether a leader that committed these offsets has sent it."""
        return (committed.get(self.source) or 0) > self.offset


class TracedInteraction(NamedTuple):
    """An interaction whose sender traces it."""

    user_id: str
    item_id: str
    event_id: str
    source: TopicPartition
    offset: int
    context: Headers
    """Of its record, as `runtime.observability.trace_context` tells it."""
    read_ms: int
    """When it was read, Unix milliseconds."""


@dataclass(frozen=True, eq=False)
class StateBatch:
    """The changes that the records up to some offsets have made, or a part of them.

    Attributes:
        offsets: next offset to be read per partition; all records before it are in the state. None in a part that
            leaves some of these changes to later parts.
        users: ids of users whose state changed, or that left.
        items: the same for items.
        parts: ids of items of which this shard's part has changed, or is over.
        dead_letters: records that could not be read.
        event_times_ms: event times of its interactions, to measure freshness.
        traced: those of its interactions whose senders trace them, oldest first; the newest ones if they are many.
    """

    offsets: Offsets
    users: Sequence[str] = ()
    items: Sequence[str] = ()
    parts: Sequence[str] = ()
    dead_letters: Sequence[DeadLetter] = ()
    event_times_ms: Sequence[int] = ()
    traced: Sequence[TracedInteraction] = ()

    def without(self, committed: CommittedOffsets, *, keep_states: bool = False) -> StateBatch | None:
        """What a leader that committed these offsets has not published of it; None if nothing is left.

        Args:
            committed: by the group.
            keep_states: keep its states even if they are covered.
        """
        if not keep_states and are_covered(self.offsets, committed):
            return None
        return replace(self, dead_letters=[one for one in self.dead_letters if not one.is_covered_by(committed)])

    @property
    def letter_bytes(self) -> int:
        """Bytes of its dead letters."""
        return sum(one.letter.size for one in self.dead_letters)


def are_covered(offsets: Offsets, committed: CommittedOffsets) -> bool:
    """Whether all records before these offsets are before the committed ones."""
    return all((committed.get(partition) or 0) >= offset for partition, offset in offsets.items())


@dataclass(frozen=True)
class Progress:
    """What the group's committed offsets tell.

    Attributes:
        offsets: up to which leaders have published everything, per partition that has one.
        spaces: those in which the topics' embeddings are, as far as leaders have told; earlier releases told none.
    """

    offsets: Offsets
    spaces: frozenset[str] = frozenset()

    @classmethod
    def of(cls, committed: Mapping[TopicPartition, tuple[int, str]]) -> Progress:
        """From committed offsets and the texts beside them."""
        texts = [text for _, text in committed.values()]
        return cls(
            {place: offset for place, (offset, _) in committed.items()},
            frozenset(text.removeprefix(_SPACE) for text in texts if text.startswith(_SPACE)),
        )


def space_note(space: str) -> str:
    """The text beside committed offsets: everything up to them has been published in this space."""
    return _SPACE + space if space else ""
