"""Items and users by id: embeddings, counts, histories, titles, and the two indexes that search them.

Owned by one thread. A change is written to its row at once, and to the index only before the next search: of many
changes of one id between two searches the index sees one. Per entry there is its id, an embedding, its counts and, for
a user, a row of packed history; no Python object besides the id and a title's tokens.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np
import structlog
from numpy.typing import NDArray

from models.evidence import ItemFacts, Vector
from models.text import Text
from schemas.codec import MalformedRecord
from schemas.embeddings import decode_embedding
from schemas.messages import Embedding, Item, ItemState, PastInteraction, UserState
from worker.state_store.retries import Retries
from worker.state_store.rows import UNKNOWN_ROW, RowIds, grown
from worker.state_store.settings import TableSettings
from worker.state_store.vector_index import VectorIndex

log = structlog.get_logger(__name__)
Rows = NDArray[np.int64]
Matrix = NDArray[np.float32]

NO_PAST = -1
"""Fills a history that is shorter than the table's limit."""


DEGRADED_AFTER_S = 600.0
"""Search that has been worse for so long than it should be is worth a person's attention."""
LARGEST_NUMBER = 1e6
"""Largest magnitude in an embedding; beyond it sums of products would leave float32."""


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
    ) -> None:
        self._settings = settings or TableSettings()
        self.embedding_dim = embedding_dim
        self._space = space
        self._text = text
        self.items = ItemColumns(embedding_dim)
        self.users = UserColumns(embedding_dim, self._settings.history_length)
        self.item_index = VectorIndex(embedding_dim, self._settings, executor, clock)
        self.user_index = VectorIndex(embedding_dim, self._settings, executor, clock)
        self.refreshing = Retries(clock)
        self._changed_items: set[int] = set()
        self._changed_users: set[int] = set()

    def put_item(self, item: Item) -> None:
        """Stores an item's text."""
        tokens = self._text.encode_item(item)
        row = self.items.intern(item.item_id)
        self.items.titles[row] = array("i", tokens[: self._settings.title_tokens])

    def put_item_state(self, state: ItemState) -> None:
        """Stores an item's embedding and counts.

        Raises:
            MalformedRecord: the embedding is not finite or not of this table's width, or a number is beyond 64 bits.
        """
        is_foreign = self._is_foreign(state.embedding)
        embedding = None if is_foreign else self._vector(state.embedding)
        _check_range(state.impressions, state.positives)
        row = self.items.intern(state.item_id)
        if is_foreign:
            self.items.foreign[row] = True
        else:
            self.items.set_embedding(row, embedding)
        self.items.counts[row] = state.impressions, state.positives
        self._changed_items.add(row)

    def put_user_state(self, state: UserState) -> None:
        """Stores a user's embedding, counts and history.

        Raises:
            MalformedRecord: the embedding is not finite or not of this table's width, or a number is beyond 64 bits.
        """
        is_foreign = self._is_foreign(state.embedding)
        embedding = None if is_foreign else self._vector(state.embedding)
        version = state.embedding.version if state.embedding is not None else 0
        _check_range(state.impressions, state.positives, version, state.last_event_time_ms)
        row = self.users.intern(state.user_id)
        if is_foreign:
            self.users.foreign[row] = True
        else:
            self.users.set_embedding(row, embedding)
            self.users.versions[row] = version
        self.users.counts[row] = state.impressions, state.positives
        self.users.event_times_ms[row] = state.last_event_time_ms
        self._set_history(row, state.recent[-self._settings.history_length :])
        self._changed_users.add(row)

    def remove_item(self, item_id: str) -> None:
        """Removes an item's text (a tombstone in the catalogue)."""
        row = self.items.ids.row(item_id)
        if row != UNKNOWN_ROW:
            self.items.titles[row] = _NO_TITLE

    def remove_item_state(self, item_id: str) -> None:
        """Removes an item's embedding and counts. Its row stays, since histories refer to it."""
        row = self.items.ids.row(item_id)
        if row != UNKNOWN_ROW:
            self.items.set_embedding(row, None)
            self.items.counts[row] = 0
            self._changed_items.add(row)

    def remove_user(self, user_id: str) -> None:
        """Removes a user."""
        row = self.users.ids.forget(user_id)
        if row != UNKNOWN_ROW:
            self.users.set_embedding(row, None)
            self.users.counts[row] = 0
            self.users.versions[row] = 0
            self.users.event_times_ms[row] = 0
            self.users.histories[row] = NO_PAST
            self.users.history_lengths[row] = 0
            self._changed_users.add(row)

    def refresh_indexes(self) -> None:
        """Brings both search indexes up to date. They hold what can serve as evidence: items that have been shown, and
        users with a history. If that fails they serve as they are, and it is tried again after a pause.
        """
        if not (self._changed_items or self._changed_users) or not self.refreshing.is_due:
            return
        try:
            _refresh(self.item_index, self._changed_items, self.items)
            _refresh(self.user_index, self._changed_users, self.users)
        except Exception as error:
            self.refreshing.failed()
            log.exception(
                "changes could not be written to the search indexes; they serve as they are",
                reason=repr(error),
                attempt_again_in_s=self.refreshing.pause_s,
            )
        else:
            self.refreshing.succeeded()

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
        """Items and users whose latest embedding is of another space."""
        return int(self.items.foreign.sum()) + int(self.users.foreign.sum())

    def _is_foreign(self, embedding: Embedding | None) -> bool:
        return embedding is not None and bool(self._space and embedding.space) and embedding.space != self._space

    def _vector(self, embedding: Embedding | None) -> Vector | None:
        if embedding is None:
            return None
        vector = decode_embedding(embedding)
        if len(vector) != self.embedding_dim:
            raise MalformedRecord(
                f"an embedding of {len(vector)} numbers where the model reads {self.embedding_dim}: "
                "the updater runs another bundle"
            )
        if np.abs(vector).max() > LARGEST_NUMBER:
            raise MalformedRecord(f"an embedding holds a number beyond {LARGEST_NUMBER:g}")
        return vector

    def _set_history(self, row: int, recent: Sequence[PastInteraction]) -> None:
        packed = [2 * self.items.intern(past.item_id) + past.positive for past in recent]
        history = self.users.histories[row]
        history[: len(packed)] = packed
        history[len(packed) :] = NO_PAST
        self.users.history_lengths[row] = len(packed)


def _check_range(*numbers: int) -> None:
    """Before anything is stored, so that a refused state leaves the previous one whole.

    Raises:
        MalformedRecord: a number does not fit into the columns.
    """
    for number in numbers:
        if not -(2**63) <= number < 2**63:
            raise MalformedRecord(f"the number {number} is beyond 64 bits")


def normalised(vectors: Matrix) -> Matrix:
    """Rows of (n, dim) scaled to length 1; a row of zeros stays zeros."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    lengths[lengths == 0] = 1
    unit: Matrix = vectors / lengths[:, None]
    return unit


class EmbeddedColumns:
    """What items and users have in common: id, embedding (or none), impressions and positives."""

    def __init__(self, dim: int) -> None:
        self.ids = RowIds()
        self.embeddings: Matrix = np.zeros((0, dim), np.float32)  # (rows, dim)
        self.embedded: NDArray[np.bool_] = np.zeros(0, np.bool_)  # (rows,)
        self.foreign: NDArray[np.bool_] = np.zeros(0, np.bool_)  # (rows,) the latest embedding is of another space
        self.counts: NDArray[np.int64] = np.zeros((0, 2), np.int64)  # (rows, impressions and positives)

    def intern(self, name: str) -> int:
        """The row of an id, with room for it in every column."""
        row = self.ids.intern(name)
        if row >= len(self.embedded):
            self._grow(row + 1)
        return row

    def set_embedding(self, row: int, embedding: Vector | None) -> None:
        """An embedding without direction (all zeros) counts as none."""
        there = embedding is not None and bool(embedding.any())
        self.embeddings[row] = embedding if there else 0
        self.embedded[row] = there
        self.foreign[row] = False

    def awaited_and_known(self) -> tuple[int, int]:
        """Rows that have an embedding of another space alone, and rows that have any."""
        return int((self.foreign & ~self.embedded).sum()), int((self.foreign | self.embedded).sum())

    def _grow(self, rows: int) -> None:
        self.embeddings = grown(self.embeddings, rows)
        self.embedded = grown(self.embedded, rows)
        self.foreign = grown(self.foreign, rows)
        self.counts = grown(self.counts, rows)


class ItemColumns(EmbeddedColumns):
    """Items. Users' histories refer to rows, so rows are never used again for another item."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.titles: list[Sequence[int]] = []

    def facts(self, rows: Rows) -> dict[int, ItemFacts]:
        """Facts of the items in distinct `rows`, by row; copies, so that later changes do not reach them."""
        embeddings = self.embeddings[rows]
        embedded = self.embedded[rows].tolist()
        counts = self.counts[rows].tolist()
        return {
            row: ItemFacts(self.ids.id_of(row), self.titles[row], embeddings[at] if embedded[at] else None, *counts[at])
            for at, row in enumerate(rows.tolist())
        }

    def is_searchable(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether the item has been shown."""
        met: NDArray[np.bool_] = self.counts[rows, 0] > 0
        return met

    def _grow(self, rows: int) -> None:
        super()._grow(rows)
        self.titles.extend([_NO_TITLE] * (len(self.embedded) - len(self.titles)))


class UserColumns(EmbeddedColumns):
    """Users. A history entry is 2 × the item's row + 1 if positive, oldest first, then NO_PAST."""

    def __init__(self, dim: int, history_length: int) -> None:
        super().__init__(dim)
        self.histories: NDArray[np.int32] = np.zeros((0, history_length), np.int32)  # (rows, history)
        self.history_lengths: NDArray[np.int32] = np.zeros(0, np.int32)  # (rows,)
        self.versions: NDArray[np.int64] = np.zeros(0, np.int64)  # (rows,) of the embedding, 0 for none
        self.event_times_ms: NDArray[np.int64] = np.zeros(0, np.int64)  # (rows,) of the newest interaction in the state

    def is_searchable(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether the user has a history."""
        remembered: NDArray[np.bool_] = self.history_lengths[rows] > 0
        return remembered

    def embedding_stamp(self, user_id: str) -> tuple[int, int] | None:
        """Version of the user's embedding and event time of the newest interaction in it; None without embedding."""
        row = self.ids.row(user_id)
        if row == UNKNOWN_ROW or not self.embedded[row]:
            return None
        return int(self.versions[row]), int(self.event_times_ms[row])

    def newest_event_ms(self, user_id: str) -> int:
        """Event time of the newest interaction in the user's state; -1 for an unknown user."""
        row = self.ids.row(user_id)
        return -1 if row == UNKNOWN_ROW else int(self.event_times_ms[row])

    def _grow(self, rows: int) -> None:
        super()._grow(rows)
        self.histories = grown(self.histories, rows, NO_PAST)
        self.history_lengths = grown(self.history_lengths, rows)
        self.versions = grown(self.versions, rows)
        self.event_times_ms = grown(self.event_times_ms, rows)


_NO_TITLE: Sequence[int] = array("i")


def _refresh(index: VectorIndex, changed: set[int], columns: ItemColumns | UserColumns) -> None:
    """Writes changed rows to the index, or takes them out of it, and empties the set. Can be repeated if it fails."""
    if not changed:
        return
    rows: Rows = np.fromiter(changed, np.int64, len(changed))
    wanted = columns.embedded[rows] & columns.is_searchable(rows)
    index.put(rows[wanted], normalised(columns.embeddings[rows[wanted]]))
    index.remove(rows[~wanted])
    changed.clear()
