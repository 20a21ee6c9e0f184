"""Items and users by id: embeddings, counts, histories, titles, and the two indexes that search them.

Owned by one thread. A change is written to its row at once, and to the index only before the next search: of many
changes of one id between two searches the index sees one. Per entry there is its id, an embedding, its counts and, for
a user, a row of packed history; no Python object besides the id and a title's tokens.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from models.attributes import attribute_values, title_words
from models.prompt_limits import HISTORY_LENGTH
from models.text import Text
from schemas.codec import MalformedRecord
from schemas.embeddings import decode_embedding
from schemas.messages import Embedding, Item, ItemState, UserState
from schemas.packed_states import ITEM_MAGIC, USER_MAGIC, pack_state, unpack_history
from worker.state_store.columns import Matrix, Rows, normalised
from worker.state_store.item_columns import ItemColumns
from worker.state_store.packed_batch import PackedBatch, PastColumns
from worker.state_store.retries import Retries
from worker.state_store.rows import UNKNOWN_ROW
from worker.state_store.settings import TableSettings
from worker.state_store.user_columns import UserColumns
from worker.state_store.vector_index import VectorIndex

log = structlog.get_logger(__name__)

DEGRADED_AFTER_S = 600.0
"""Search that has been worse for so long than it should be is worth a person's attention."""
_REMOVED_AT_ONCE = 256
"""Users whose partition is given up; their removal from the search index included, less than a millisecond."""
LARGEST_NUMBER = 65_000.0
"""Largest magnitude in an embedding: half precision ends soon after."""


class StoredStates(NamedTuple):
    """What became of a batch."""

    records: Rows
    """Those that were stored; the others cannot be used."""
    news_ms: NDArray[np.int64]
    """Event times of users' interactions that were not known before."""


class Tables:
    """Items and users by id.

    Args:
        text: the tokenizer; an item's text is encoded once, when it arrives.
        embedding_dim: width that every embedding must have.
        space: identity of the bundle's base embeddings. An embedding made of others is not taken: the one before stays,
            if there is one. Counts and histories are. Empty takes every embedding.
        settings: what is kept, and how it is searched.
        executor: where search indexes are trained; None trains them on the spot.
        clock: monotonic seconds, for the pauses after a failure.
        history_length: past interactions kept per user, the latest; the bundle's, as its statistics count them all.

    Attributes:
        refreshing: how the attempts to bring the indexes up to date have gone.
    """

    def __init__(
        self,
        text: Text,
        embedding_dim: int,
        settings: TableSettings | None = None,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        space: str = "",
        history_length: int = HISTORY_LENGTH,
    ) -> None:
        self._settings = settings or TableSettings()
        self.embedding_dim = embedding_dim
        self._history_length = history_length
        self._space = space
        self._text = text
        self.items = ItemColumns(embedding_dim)
        self.users = UserColumns(embedding_dim)
        self.item_index = VectorIndex(embedding_dim, self._settings, executor, clock)
        self.user_index = VectorIndex(embedding_dim, self._settings, executor, clock)
        self.refreshing = Retries(clock)

    def put_item(self, item: Item) -> None:
        """Stores an item's text."""
        tokens = self._text.encode_item(item)
        row = self.items.intern(item.item_id)
        self.items.set_text(row, array("i", tokens[: self._settings.title_tokens]))
        self.items.set_words(row, attribute_values(item.attributes), title_words(item.title))

    def put_item_states(self, states: PackedBatch, keys: Sequence[bytes]) -> StoredStates:
        """Stores embeddings and counts of distinct items, whose ids must be `keys`. What cannot be used leaves the item
        as it was.
        """
        states.require_ids(keys)
        records, own, vectors = self._usable(states)
        rows = self.items.intern_many([keys[at].decode() for at in records.tolist()])
        self.items.set_counts(rows, _counts(states, records))
        self._set_embeddings(self.items, rows, own, vectors, states.has_embedding()[records])
        self.items.changed.mark(rows)
        return StoredStates(records, np.zeros(0, np.int64))

    def put_user_states(
        self, states: PackedBatch, keys: Sequence[bytes], partitions: Sequence[int] | None = None
    ) -> StoredStates:
        """Stores embeddings, counts and histories of distinct users, whose ids must be `keys`. What cannot be used
        leaves the user as it was.

        Args:
            states: of the users.
            keys: their ids.
            partitions: of the topic in which each state stands; None: all in the first one.
        """
        states.require_ids(keys)
        records, own, vectors = self._usable(states)
        past = states.past(records, self._history_length)
        items, readable = self._item_rows(states, records, past)
        if not readable.all():
            states.ok[records[~readable]] = False
            return self.put_user_states(states, keys, partitions)
        users = self.users
        rows, new = users.ids.intern([keys[at] for at in records.tolist()])
        users.grow(users.ids.high_water)
        header = states.header[records]
        there = states.has_embedding()[records]
        self._set_embeddings(users, rows, own, vectors, there)
        users.versions[rows[own | ~there]] = np.where(there, header["version"], 0)[own | ~there]
        users.counts[rows] = _counts(states, records)
        users.partitions[rows] = 0 if partitions is None else np.asarray(partitions, np.int32)[records]
        known_ms = np.where(new, -1, users.event_times_ms[rows])
        users.event_times_ms[rows] = header["last_event_time_ms"]
        news = np.flatnonzero(header["last_event_time_ms"] > known_ms)
        before = users.histories.entries_of(rows)[0] >> 1
        users.histories.put(rows, past.lengths, 2 * items + past.positive, past.grades)
        self.items.move_mentions(before, items)
        users.changed.mark(rows)
        return StoredStates(records, states.times_after(records[news], known_ms[news]))

    def put_item_state(self, state: ItemState) -> None:
        """Stores one item's embedding and counts.

        Raises:
            MalformedRecord: the embedding is not finite or not of this table's width, or a number is beyond 64 bits.
        """
        self._put_one(self.put_item_states, state, state.item_id, ITEM_MAGIC)

    def put_user_state(self, state: UserState) -> None:
        """Stores one user's embedding, counts and history.

        Raises:
            MalformedRecord: the embedding is not finite or not of this table's width, or a number is beyond 64 bits.
        """
        self._put_one(self.put_user_states, state, state.user_id, USER_MAGIC)

    def remove_item(self, item_id: str) -> None:
        """Removes an item's text (a tombstone in the catalogue)."""
        row = self.items.ids.row(item_id)
        if row != UNKNOWN_ROW:
            self.items.forget_text(row)

    def remove_item_state(self, item_id: str) -> None:
        """Removes an item's embedding and counts. Its row stays as long as histories refer to it."""
        row = self.items.ids.row(item_id)
        if row != UNKNOWN_ROW:
            self.items.forget_state(row)
            self.items.changed.mark(np.array([row]))

    def remove_user(self, user_id: str) -> None:
        """Removes a user."""
        row = self.users.ids.row(user_id)
        if row != UNKNOWN_ROW:
            self._remove_users(np.array([row]))

    def remove_partition(self, partition: int) -> Generator[int, None, None]:
        """Removes the users of a partition, some at each step, so that requests are served between two steps; nobody
        may add users of it meanwhile. Yields how many were removed.
        """
        rows = self.users.in_partition(partition)
        for start in range(0, len(rows), _REMOVED_AT_ONCE):
            some = rows[start : start + _REMOVED_AT_ONCE]
            # Not those that a state in another partition has taken over since, or a tombstone there removed.
            some = some[(self.users.partitions[some] == partition) & self.users.ids.in_use(some)]
            self._remove_users(some)
            self.refresh_indexes()
            yield len(some)

    def check(self, embedding: Embedding | None) -> None:
        """Checks that an embedding can be stored.

        Raises:
            MalformedRecord: it cannot, with the reason.
        """
        if embedding is None or (self._space and embedding.space and embedding.space != self._space):
            return
        vector = decode_embedding(embedding)
        if len(vector) != self.embedding_dim:
            raise MalformedRecord(
                f"an embedding of {len(vector)} numbers where the model reads {self.embedding_dim}: "
                "the updater runs another bundle"
            )
        if np.abs(vector).max() > LARGEST_NUMBER:
            raise MalformedRecord(f"an embedding holds a number beyond {LARGEST_NUMBER:g}")

    def refresh_indexes(self) -> None:
        """Brings both search indexes up to date. They hold what can serve as evidence: items that have been shown, and
        users with a history. If that fails they serve as they are, and it is tried again after a pause.
        """
        if not (self.items.changed or self.users.changed) or not self.refreshing.is_due:
            return
        try:
            _refresh(self.item_index, self.items)
            _refresh(self.user_index, self.users)
        except Exception as error:
            self.refreshing.failed()
            log.exception(
                "changes could not be written to the search indexes; they serve as they are",
                reason=repr(error),
                attempt_again_in_s=self.refreshing.pause_s,
            )
        else:
            self.refreshing.succeeded()
            for index, ids in ((self.item_index, self.items.ids), (self.user_index, self.users.ids)):
                if index.is_settled:
                    ids.reuse()

    def search_awaited(self) -> str | None:
        """Brings the indexes up to date and says why searches would be slow yet, for people; None if they are not. As
        long as there are more entries than are searched exactly and no lists for them, each compares with every entry.
        """
        self.refresh_indexes()
        for kind, index in (("items", self.item_index), ("users", self.user_index)):
            index.maintain()
            if index.is_awaited:
                failed = f"; attempts failed so far: {index.training.failures}, the log says why"
                return f"training the index of {len(index)} {kind}" + failed * bool(index.training.pause_s)
        return None

    def search_trouble(self) -> str | None:
        """What has kept search below its quality for long, for people; None if nothing has. From any thread."""
        for what, retries in (
            ("changes cannot be written to the search indexes", self.refreshing),
            ("the index of items cannot be trained", self.item_index.training),
            ("the index of users cannot be trained", self.user_index.training),
        ):
            if retries.failing_for_s > DEGRADED_AFTER_S:
                return f"{what} since {retries.failing_for_s:.0f} s; the log says why"
        return None

    def embeddings_awaited(self) -> float:
        """Share of the known items and users whose embedding has not come yet but one of another space has."""
        awaited, known = (
            sum(counts) for counts in zip(self.items.awaited_and_known(), self.users.awaited_and_known(), strict=True)
        )
        return awaited / max(1, known)

    def foreign_embeddings(self) -> int:
        """Items and users whose latest embedding is of another space. From any thread."""
        return self.items.foreign_count + self.users.foreign_count

    def _usable(self, states: PackedBatch) -> tuple[Rows, NDArray[np.bool_], Matrix]:
        """The records that can be stored, which of them have an embedding of this space, and those embeddings."""
        own = states.is_of_space(self._space.encode())
        fits = ~own | (states.header["dim"] == self.embedding_dim)
        records = np.flatnonzero(states.ok & fits)
        own = own[records]
        vectors = states.embeddings(records[own], self.embedding_dim)
        storable = np.ones(len(records), np.bool_)
        storable[own] = np.abs(vectors).max(axis=1, initial=0) <= LARGEST_NUMBER  # false for what is not a number
        return records[storable], own[storable], vectors[storable[own]]

    def _set_embeddings(
        self,
        columns: ItemColumns | UserColumns,
        rows: Rows,
        own: NDArray[np.bool_],
        vectors: Matrix,
        there: NDArray[np.bool_],
    ) -> None:
        """Takes embeddings of this space and forgets those of states without; one of another space changes nothing."""
        columns.set_embeddings(rows[own], vectors)
        none = rows[~there]
        columns.set_embeddings(none, np.zeros((len(none), self.embedding_dim), np.float32))
        columns.mark_foreign(rows[there & ~own])

    def _item_rows(self, states: PackedBatch, records: Rows, past: PastColumns) -> tuple[Rows, NDArray[np.bool_]]:
        """Rows of the items in histories, end to end, and which of the records name their new ones readably."""
        items = self.items.find(past.hashes)
        readable = np.ones(len(records), np.bool_)
        unknown = items == UNKNOWN_ROW
        if unknown.any():
            of_record = np.repeat(np.arange(len(records)), past.lengths)
            for at in np.unique(of_record[unknown]).tolist():
                readable[at] = self._name_items(states.value(int(records[at])))
            items[unknown] = self.items.find(past.hashes[unknown])
            readable[of_record[items == UNKNOWN_ROW]] = False
        return items, readable

    def _name_items(self, value: bytes) -> bool:
        """Gives the items of a history that is kept rows; whether their ids can be read."""
        try:
            past = unpack_history(value)
        except MalformedRecord:
            return False
        for one in past[-self._history_length :]:
            self.items.intern(one.item_id)
        return True

    def _remove_users(self, rows: Rows) -> None:
        self.items.move_mentions(self.users.remove(rows), np.zeros(0, np.int64))
        self.users.changed.mark(rows)

    def _put_one(
        self,
        put: Callable[[PackedBatch, Sequence[bytes]], StoredStates],
        state: UserState | ItemState,
        name: str,
        magic: bytes,
    ) -> None:
        packed = pack_state(state)
        if not len(put(PackedBatch([packed], magic), [name.encode()]).records):
            self.check(state.embedding)
            raise MalformedRecord("the state cannot be stored")


def _counts(states: PackedBatch, records: Rows) -> NDArray[np.int64]:
    """(records, COUNTS)."""
    header = states.header[records]
    return np.stack([header["impressions"], header["positives"], header["grades"]], axis=1)


def _refresh(index: VectorIndex, columns: ItemColumns | UserColumns) -> None:
    """Writes changed rows to the index, or takes them out of it. Can be repeated if it fails."""
    if not columns.changed:
        return
    rows = columns.changed.rows()
    wanted = columns.embedded[rows] & columns.is_searchable(rows)
    index.put(rows[wanted], normalised(columns.embeddings[rows[wanted]]))
    index.remove(rows[~wanted])
    columns.changed.clear()
