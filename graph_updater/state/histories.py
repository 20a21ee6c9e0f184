"""Each user's last K interactions in order of time, and what a new one means for counts and for the graph.

An interaction is a duplicate if the history holds its event id, or an entry with the same item and time. Duplicates are
not counted again; of the two, the stronger judgement, the better grade and the smaller id are kept. Late interactions
are inserted at their place in time. Of one item's judgements the latest in time decides over the edge: positive sets
it, negative or withdrawn removes it, neutral leaves it. A withdrawal removes the item's entries up to its own time and
stays as a hidden marker, so that a late or repeated interaction does not bring them back. As far back as
the history reaches, the result does not depend on the order of arrival, and events count once.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graph_updater.graph.lists import (
    NO_BLOCK,
    Lists,
    add_lists,
    cells_of,
    empty_lists,
    free_block,
    is_full,
    lay_out,
    take_block,
)
from runtime.arrays import grow

NEUTRAL: Final = 0
NEGATIVE: Final = 1
POSITIVE: Final = 2
WITHDRAWN: Final = 3

KEEP_EDGE: Final = 0
SET_EDGE: Final = 1
DROP_EDGE: Final = 2

_EVENT_WORDS: Final = 5
_EVENT_BYTES: Final = 8 * _EVENT_WORDS
_UNKNOWN: Final = -1


class Entries(NamedTuple):
    """Interactions as columns: a batch to be recorded, or the cells of all histories."""

    item: NDArray[np.int32]  # (entries,) node of the item
    time: NDArray[np.int64]  # (entries,) event time in ms
    judgement: NDArray[np.uint8]  # (entries,) NEUTRAL, NEGATIVE, POSITIVE or WITHDRAWN
    grade: NDArray[np.uint8]  # (entries,) how good it was for the user, up to FULL_GRADE
    event: NDArray[np.uint64]  # (entries, 5) see `pack_event_ids`


class Verdicts(NamedTuple):
    """The effect of each interaction of a batch."""

    counted: NDArray[np.uint8]  # (entries,) 1 if it is no duplicate
    gained: NDArray[np.uint8]  # (entries,) 1 if it made an entry positive that was not
    graded: NDArray[np.uint8]  # (entries,) by how much it raised the sum of grades
    edge: NDArray[np.uint8]  # (entries,) KEEP_EDGE, SET_EDGE or DROP_EDGE


class PastEntry(NamedTuple):
    """An entry as it is published."""

    item: int
    time_ms: int
    positive: bool
    event_id: str
    grade: int


class Histories:
    """The histories of all nodes; those of items stay empty.

    Args:
        length: entries kept per user, markers of withdrawals included.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self.lists = empty_lists()
        self.cells = Entries(
            item=np.zeros(0, np.int32),
            time=np.zeros(0, np.int64),
            judgement=np.zeros(0, np.uint8),
            grade=np.zeros(0, np.uint8),
            event=np.zeros((0, _EVENT_WORDS), np.uint64),
        )
        self.mentions = np.zeros(0, np.int32)  # (nodes,) how many entries of all histories are of the item

    def add_nodes(self, needed: int) -> None:
        """Makes room for `needed` nodes in all."""
        add_lists(self.lists, needed)
        grow(self.mentions, needed)

    def record(self, users: NDArray[np.int32], batch: Entries) -> Verdicts:
        """Adds interactions to their users' histories, in order of arrival; users: (entries,)."""
        count = users.shape[0]
        verdicts = Verdicts(*(np.zeros(count, np.uint8) for _ in Verdicts._fields))
        done = 0
        while True:
            done = _record(self.lists, self.cells, self.mentions, users, batch, verdicts, done, self._length)
            if done == count:
                return verdicts
            needed = self.cells.item.shape[0] + 2 * self._length + 64
            for column in self.cells:
                grow(column, needed)

    def entries(self, user: int) -> list[PastEntry]:
        """A user's history without markers, oldest first."""
        start = int(self.lists.start[user])
        cells = slice(start, start + int(self.lists.length[user]))
        item, time, judgement, grade, event = (column[cells] for column in self.cells)
        rows = zip(item.tolist(), time.tolist(), judgement.tolist(), grade.tolist(), strict=True)
        events = event.tobytes()
        return [
            PastEntry(item, time, judgement == POSITIVE, _unpack_event_id(events[at : at + _EVENT_BYTES]), grade)
            for at, (item, time, judgement, grade) in zip(range(0, len(events), _EVENT_BYTES), rows, strict=True)
            if judgement != WITHDRAWN
        ]

    def entries_of(self, users: NDArray[np.int32]) -> Entries:
        """All entries, markers included, of these users, history after history."""
        cells = cells_of(self.lists, users)
        return Entries._make(column[cells] for column in self.cells)

    def restore(self, lengths: NDArray[np.int64], entries: Entries) -> None:
        """Fills empty histories; lengths: (nodes,), entries in the order of the nodes."""
        cells = lay_out(self.lists, lengths)
        at = cells_of(self.lists, np.arange(lengths.size, dtype=np.int32))
        columns: list[NDArray[Any]] = list(self.cells)
        for column, values in zip(columns, entries, strict=True):
            grow(column, cells)
            column[at] = values
        self.mentions[: lengths.size] = np.bincount(entries.item, minlength=lengths.size)

    def keep(self, length: int) -> NDArray[np.int32]:
        """Keeps at most `length` entries per user from now on, the newest. Returns the nodes that lost some."""
        self._length = length
        longer = np.flatnonzero(self.lists.length > length).astype(np.int32)
        _cut(self.lists, self.cells, self.mentions, longer, length)
        return longer

    def clear(self, user: int) -> None:
        """Forgets a user's history."""
        _clear(self.lists, self.cells, self.mentions, user)

    @property
    def entry_count(self) -> int:
        """Entries in all histories."""
        return int(self.lists.length.sum(dtype=np.int64))

    def nbytes(self) -> int:
        """Bytes held."""
        return sum(column.nbytes for column in (*self.lists, *self.cells, self.mentions))


def pack_event_ids(event_ids: list[str]) -> NDArray[np.uint64]:
    """Event ids as fixed-width words: (ids, 5). An id longer than 40 bytes is replaced by its BLAKE2 digest in hex."""
    return np.frombuffer(b"".join([_pack(event_id) for event_id in event_ids]), np.uint64).reshape(-1, _EVENT_WORDS)


def _pack(event_id: str) -> bytes:
    encoded = event_id.encode()
    if len(encoded) > _EVENT_BYTES or encoded.endswith(b"\0"):
        encoded = blake2b(encoded, digest_size=_EVENT_BYTES // 2).hexdigest().encode()
    return encoded.ljust(_EVENT_BYTES, b"\0")


def _unpack_event_id(packed: bytes) -> str:
    return packed.rstrip(b"\0").decode()


@njit(cache=True, nogil=True)
def _record(
    lists: Lists,
    cells: Entries,
    mentions: NDArray[np.int32],
    users: NDArray[np.int32],
    batch: Entries,
    verdicts: Verdicts,
    done: int,
    most: int,
) -> int:
    """Records interactions from index `done` on. Returns early when the columns must grow first."""
    for e in range(done, users.shape[0]):
        user, item, time, judgement = users[e], batch.item[e], batch.time[e], batch.judgement[e]
        if lists.length[user] < most and not _make_room(lists, cells, user):
            return e
        if judgement == WITHDRAWN:
            _withdraw(lists, cells, mentions, user, item, time)
        known = _find(lists, cells, user, batch, e)
        later = _strongest_later(lists, cells, user, item, time)
        stands = judgement
        if known == _UNKNOWN:
            if later == WITHDRAWN:
                continue
            _put(lists, cells, mentions, user, batch, e, most)
            verdicts.counted[e] = judgement != WITHDRAWN
            verdicts.gained[e] = judgement == POSITIVE
            verdicts.graded[e] = batch.grade[e]
        else:
            if cells.item[known] != item or cells.time[known] != time:
                continue
            stands = max(judgement, cells.judgement[known])
            verdicts.gained[e] = stands == POSITIVE and cells.judgement[known] < POSITIVE
            cells.judgement[known] = stands
            verdicts.graded[e] = max(batch.grade[e], cells.grade[known]) - cells.grade[known]
            cells.grade[known] = max(batch.grade[e], cells.grade[known])
            _keep_smaller_id(cells, lists.start[user], known, batch, e)
        if judgement != NEUTRAL and stands == judgement and later == NEUTRAL:
            verdicts.edge[e] = SET_EDGE if judgement == POSITIVE else DROP_EDGE
    return int(users.shape[0])


@njit(cache=True, nogil=True)
def _find(lists: Lists, cells: Entries, user: int, batch: Entries, e: int) -> int:
    """The cell of the same event id, or else of the same item at the same time, or _UNKNOWN."""
    same = _UNKNOWN
    for cell in range(lists.start[user], lists.start[user] + lists.length[user]):
        if np.all(cells.event[cell] == batch.event[e]):
            return cell
        if cells.item[cell] == batch.item[e] and cells.time[cell] == batch.time[e]:
            same = cell
    return same


@njit(cache=True, nogil=True)
def _strongest_later(lists: Lists, cells: Entries, user: int, item: int, time: int) -> int:
    """The strongest judgement of the item after that time; NEUTRAL if there is none."""
    strongest = NEUTRAL
    for cell in range(lists.start[user], lists.start[user] + lists.length[user]):
        if cells.item[cell] == item and cells.time[cell] > time:
            strongest = max(strongest, int(cells.judgement[cell]))
    return strongest


@njit(cache=True, nogil=True)
def _withdraw(lists: Lists, cells: Entries, mentions: NDArray[np.int32], user: int, item: int, time: int) -> None:
    """Removes the item's entries up to that time, except markers."""
    start = lists.start[user]
    kept = start
    for cell in range(start, start + lists.length[user]):
        if cells.item[cell] == item and cells.time[cell] <= time and cells.judgement[cell] != WITHDRAWN:
            mentions[item] -= 1
        else:
            _copy(cells, kept, cells, cell)
            kept += 1
    lists.length[user] = kept - start


@njit(cache=True, nogil=True)
def _put(
    lists: Lists, cells: Entries, mentions: NDArray[np.int32], user: int, batch: Entries, e: int, most: int
) -> None:
    """Inserts an entry by time, then event id. A full history loses its oldest entry, or this one if it is older."""
    start, length = lists.start[user], lists.length[user]
    place = length
    while place > 0 and _is_before(batch, e, cells, start + place - 1):
        place -= 1
    if length == most:
        if place == 0:
            return
        mentions[cells.item[start]] -= 1
        place -= 1
        for cell in range(start, start + place):
            _copy(cells, cell, cells, cell + 1)
    else:
        for cell in range(start + length, start + place, -1):
            _copy(cells, cell, cells, cell - 1)
        lists.length[user] += 1
    _copy(cells, start + place, batch, e)
    mentions[batch.item[e]] += 1


@njit(cache=True, nogil=True)
def _is_before(batch: Entries, e: int, cells: Entries, cell: int) -> bool:
    if batch.time[e] != cells.time[cell]:
        return bool(batch.time[e] < cells.time[cell])
    for k in range(_EVENT_WORDS):
        if batch.event[e, k] != cells.event[cell, k]:
            return bool(batch.event[e, k] < cells.event[cell, k])
    return False


@njit(cache=True, nogil=True)
def _keep_smaller_id(cells: Entries, start: int, known: int, batch: Entries, e: int) -> None:
    """Of duplicates the smaller id is kept, whichever came first, and decides over the entry's place."""
    if not _is_before(batch, e, cells, known):
        return
    judgement, grade, place = cells.judgement[known], cells.grade[known], known
    while place > start and _is_before(batch, e, cells, place - 1):
        _copy(cells, place, cells, place - 1)
        place -= 1
    _copy(cells, place, batch, e)
    cells.judgement[place] = judgement
    cells.grade[place] = grade


@njit(cache=True, nogil=True)
def _copy(target: Entries, there: int, source: Entries, here: int) -> None:
    target.item[there] = source.item[here]
    target.time[there] = source.time[here]
    target.judgement[there] = source.judgement[here]
    target.grade[there] = source.grade[here]
    for k in range(_EVENT_WORDS):
        target.event[there, k] = source.event[here, k]


@njit(cache=True, nogil=True)
def _make_room(lists: Lists, cells: Entries, user: int) -> bool:
    """Moves the history into a larger block if it is full; False when the columns must grow first."""
    if not is_full(lists, user):
        return True
    size_class, before = lists.size_class[user] + 1, lists.start[user]
    block = take_block(lists, cells.item, size_class)
    if block == NO_BLOCK:
        return False
    for k in range(lists.length[user]):
        _copy(cells, block + k, cells, before + k)
    if lists.size_class[user] != NO_BLOCK:
        free_block(lists, cells.item, before, lists.size_class[user])
    lists.start[user], lists.size_class[user] = block, size_class
    return True


@njit(cache=True, nogil=True)
def _cut(lists: Lists, cells: Entries, mentions: NDArray[np.int32], users: NDArray[np.int32], most: int) -> None:
    """Leaves the newest `most` entries of users who have more."""
    for user in users:
        start, surplus = lists.start[user], lists.length[user] - most
        for k in range(surplus):
            mentions[cells.item[start + k]] -= 1
        for k in range(most):
            _copy(cells, start + k, cells, start + surplus + k)
        lists.length[user] = most


@njit(cache=True, nogil=True)
def _clear(lists: Lists, cells: Entries, mentions: NDArray[np.int32], user: int) -> None:
    for cell in range(lists.start[user], lists.start[user] + lists.length[user]):
        mentions[cells.item[cell]] -= 1
    if lists.size_class[user] != NO_BLOCK:
        free_block(lists, cells.item, lists.start[user], lists.size_class[user])
    lists.size_class[user] = NO_BLOCK
    lists.length[user] = 0
