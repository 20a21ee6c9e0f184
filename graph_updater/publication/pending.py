"""Changes whose publication has begun, taken out part by part, while new ones come in.

    1. States, without offsets, as long as they do not fit into one part. Half of a part are the newest changes, so that
       an event is published within a transaction or two even while millions of older states wait.
    2. With the last of the states, or after them, dead letters. Now each part carries offsets: those up to which all
       states are published, but in no partition beyond the first letter that is still to come.

Mostly everything fits into one part. After an interruption states may be published again, which does no harm, but never
a dead letter.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container
from typing import Final

from graph_updater.publication.batch import (
    CommittedOffsets,
    DeadLetter,
    Offsets,
    StateBatch,
    TracedInteraction,
    are_covered,
)
from runtime.records import TopicPartition

LETTER_BYTES_AT_ONCE: Final = 8 * 1_048_576
"""A part takes no further letter beyond this size: they may be as large as the broker allows."""
MOST_TRACED: Final = 1_000
"""Of more interactions waiting, the oldest lose their traces."""


_Name = tuple[str, str]
"""What changed: its kind, its id."""
_KINDS: Final = ("user", "item", "part")


class PendingChanges:
    """Names of states to be published, dead letters, and the offsets that are committed with the last of them.

    Attributes:
        is_open: whether anything is left to be published; with no state or letter left, still the offsets.
        letter_bytes: bytes of the dead letters.
    """

    def __init__(self) -> None:
        self._names: OrderedDict[_Name, None] = OrderedDict()  # oldest change first
        self._letters: dict[TopicPartition, deque[DeadLetter]] = {}
        self._offsets: Offsets = {}
        self._event_times_ms: list[int] = []
        self._traced: deque[TracedInteraction] = deque(maxlen=MOST_TRACED)
        self.is_open = False
        self.letter_bytes = 0

    def add(self, batch: StateBatch) -> None:
        """Takes in a batch that follows the others in the stream."""
        for name in _names_of(batch):
            self._names[name] = None
            self._names.move_to_end(name)
        for letter in batch.dead_letters:
            self._letters.setdefault(letter.source, deque()).append(letter)
        self.letter_bytes += batch.letter_bytes
        self._offsets = batch.offsets
        self._event_times_ms += batch.event_times_ms
        self._traced += batch.traced
        self.is_open = True

    def take(self, size: int) -> StateBatch | None:
        """The next part, at most `size` records; None if nothing is left."""
        if not self.is_open:
            return None
        names = self._take_names(size)
        users, items, parts = ([name for kind, name in names if kind == wanted] for wanted in _KINDS)
        if self._names:
            return StateBatch({}, users, items, parts, traced=self._take_traced(set(users)))
        letters = self._take_letters(size - len(names))
        times, self._event_times_ms = self._event_times_ms, []
        traced = list(self._traced)
        self._traced.clear()
        self.is_open = bool(self._letters)
        return StateBatch(self._offsets_before_letters(), users, items, parts, letters, times, traced)

    def put_back(self, part: StateBatch) -> None:
        """Takes back a part that is not known to be published."""
        for name in _names_of(part):
            self._names.setdefault(name)
        for letter in reversed(part.dead_letters):
            self._letters.setdefault(letter.source, deque()).appendleft(letter)
        self.letter_bytes += part.letter_bytes
        self._event_times_ms = [*part.event_times_ms, *self._event_times_ms]
        self._traced = deque([*part.traced, *self._traced], MOST_TRACED)
        self.is_open = True

    def drop_covered(self, committed: CommittedOffsets, *, keep_states: bool) -> None:
        """Drops the letters that the committed offsets cover and, if they cover everything, the states."""
        if not self.is_open:
            return
        kept = [one for letters in self._letters.values() for one in letters if not one.is_covered_by(committed)]
        self._letters, self.letter_bytes = {}, 0
        if not keep_states and are_covered(self._offsets, committed):
            self._names.clear()
            self._event_times_ms = []
            self._traced.clear()
            self.is_open = False
            return
        self.put_back(StateBatch({}, dead_letters=kept))

    def _take_names(self, size: int) -> list[_Name]:
        """All of them or, if they are more, half from either end."""
        if len(self._names) <= size:
            names = list(self._names)
            self._names.clear()
            return names
        return [self._names.popitem(last=bool(number % 2))[0] for number in range(size)]

    def _take_traced(self, users: Container[str]) -> list[TracedInteraction]:
        """Those whose user's state is in this part."""
        taken = [one for one in self._traced if one.user_id in users]
        self._traced = deque((one for one in self._traced if one.user_id not in users), MOST_TRACED)
        return taken

    def _take_letters(self, most: int) -> list[DeadLetter]:
        taken: list[DeadLetter] = []
        taken_bytes = 0
        for source in list(self._letters):
            letters = self._letters[source]
            while letters and len(taken) < most and taken_bytes < LETTER_BYTES_AT_ONCE:
                taken.append(letters.popleft())
                taken_bytes += taken[-1].letter.size
            if not letters:
                del self._letters[source]
        self.letter_bytes -= taken_bytes
        return taken

    def _offsets_before_letters(self) -> Offsets:
        return {
            partition: min(offset, self._letters[partition][0].offset) if partition in self._letters else offset
            for partition, offset in self._offsets.items()
        }


def _names_of(batch: StateBatch) -> list[_Name]:
    return [
        (kind, name)
        for kind, names in zip(_KINDS, (batch.users, batch.items, batch.parts), strict=True)
        for name in names
    ]
