"""Finds the record that kills the process, across restarts and owners of its partition. Pure; knows nothing of Kafka.

Whoever owns a partition says with every commit that work is going on, in a note beside the committed offset; an orderly
end removes it. A new owner that finds a note knows that the one before died at work, and comes closer to the cause:

    found                        so the new owner begins the records                     and notes
    no note                      together                                                that it works
    a note                       in groups, one after the other                          each group, before it begins
    a note with a group          of the group one by one, with nothing else at work      each record, before it begins
    a note with one record       without that one: it was at work in two deaths or more

Thus one `kill -9` costs a while of smaller groups, and no record is condemned that did not end a process alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from enum import Enum, auto
from typing import Final, NamedTuple

GROUP_RECORDS: Final = 64
"""Fits into a note (Kafka takes 4,096 bytes), and can be worked through one by one in a few seconds."""
MOST_GUARDED: Final = 8_192
"""Records of a partition begun in groups after an unclean end; no more than that were at work in it."""
_NOTE: Final = re.compile(r"working group=([0-9,]*) alone=([0-9,]*)")


class Handling(Enum):
    """How a record is to be begun."""

    TOGETHER = auto()
    IN_GROUP = auto()
    ALONE = auto()
    CONDEMNED = auto()
    """Not at all: it ended the process when it was alone."""


class Note(NamedTuple):
    """What the owner of a partition says beside the committed offset."""

    group: tuple[int, ...] = ()
    """Offsets at work together, or suspects that are still to be tried alone."""
    alone: tuple[int, ...] = ()
    """Offsets that are at work alone, or were when the process died."""

    def text(self) -> str:
        """For the offset's metadata."""
        return f"working group={_joined(self.group)} alone={_joined(self.alone)}"

    @classmethod
    def read(cls, text: str) -> Note | None:
        """A note in an offset's metadata; None if there is none, or what is there is not ours."""
        found = _NOTE.fullmatch(text)
        return None if found is None else cls(_offsets(found[1]), _offsets(found[2]))


class PartitionAttempts:
    """One assignment of a partition.

    Args:
        found: the note that its last owner left; None after an orderly end.
        committed: the offset beside it: earlier records are done.
        end: offset after the last record there is; none beyond it can have been at work.
    """

    def __init__(self, found: Note | None, committed: int, end: int) -> None:
        group, alone = found or Note()
        self._condemned = {offset for offset in alone if offset >= committed}
        self._suspects = {offset for offset in group if offset >= committed} - self._condemned
        self._at_work: set[int] = set()
        self._alone: set[int] = set()
        is_known = bool(self._condemned or self._suspects)
        self._guarded_below = end if found is not None and not is_known else -1
        self._guarded_left = MOST_GUARDED

    def handling(self, offset: int) -> Handling:
        """How to begin the record at this offset."""
        if offset in self._condemned:
            return Handling.CONDEMNED
        if offset in self._suspects:
            return Handling.ALONE
        if offset < self._guarded_below and self._guarded_left > 0:
            return Handling.IN_GROUP
        return Handling.TOGETHER

    def begin_group(self, offsets: Collection[int]) -> None:
        """Says that these are at work from now on. To be noted before they begin."""
        self._at_work.update(offsets)
        self._guarded_left -= len(offsets)

    def begin_alone(self, offset: int) -> None:
        """Says that this one is at work from now on, and nothing else. To be noted before it begins."""
        self._alone.add(offset)

    def done(self, offset: int) -> None:
        """Says that a record is answered, or ended as a dead letter."""
        for offsets in (self._at_work, self._alone, self._suspects, self._condemned):
            offsets.discard(offset)

    @property
    def note(self) -> Note:
        """What to say with the next commit."""
        alone = self._condemned | self._alone
        return Note(tuple(sorted((self._at_work | self._suspects) - alone)), tuple(sorted(alone)))


def _joined(offsets: Iterable[int]) -> str:
    return ",".join(map(str, offsets))


def _offsets(text: str) -> tuple[int, ...]:
    return tuple(int(offset) for offset in text.split(",") if offset)
