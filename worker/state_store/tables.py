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

from models.attributes import attribute_values, title_words
from models.evidence import Vector
from models.prompt_limits import HISTORY_LENGTH
from models.text import Text
from schemas.codec import MalformedRecord
from schemas.embeddings import decode_embedding
from schemas.messages import FULL_GRADE, Embedding, Item, ItemState, PastInteraction, UserState, grades_of
from worker.state_store.columns import NO_PAST, NO_TITLE, ItemColumns, Rows, UserColumns, normalised
from worker.state_store.retries import Retries
from worker.state_store.rows import UNKNOWN_ROW
from worker.state_store.settings import TableSettings
from worker.state_store.vector_index import VectorIndex

log = structlog.get_logger(__name__)

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
        self.users = UserColumns(embedding_dim, history_length)
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
        self.items.set_words(row, attribute_values(item.attributes), title_words(item.title))

    def put_item_state(self, state: ItemState) -> None:
        """Stores an item's embedding and counts.

        Raises:
            MalformedRecord: the embedding is not finite or not of this table's width, or a number is beyond 64 bits.
        """
        is_foreign = self._is_foreign(state.embedding)
        embedding = None if is_foreign else self._vector(state.embedding)
        grades = grades_of(state)
        _check_range(state.impressions, state.positives, grades)
        row = self.items.intern(state.item_id)
        if is_foreign:
            self.items.foreign[row] = True
        else:
            self.items.set_embedding(row, embedding)
        self.items.set_counts(row, state.impressions, state.positives, grades)
        self._changed_items.add(row)

    def put_user_state(self, state: UserState) -> None:
        """Stores a user's embedding, counts and history.

        Raises:
            MalformedRecord: the embedding is not finite or not of this table's width, or a number is beyond 64 bits.
        """
        is_foreign = self._is_foreign(state.embedding)
        embedding = None if is_foreign else self._vector(state.embedding)
        version = state.embedding.version if state.embedding is not None else 0
        grades = grades_of(state)
        _check_range(state.impressions, state.positives, grades, version, state.last_event_time_ms)
        row = self.users.intern(state.user_id)
        if is_foreign:
            self.users.foreign[row] = True
        else:
            self.users.set_embedding(row, embedding)
            self.users.versions[row] = version
        self.users.counts[row] = state.impressions, state.positives, grades
        self.users.event_times_ms[row] = state.last_event_time_ms
        self._set_history(row, state.recent[-self._history_length :])
        self._changed_users.add(row)

    def remove_item(self, item_id: str) -> None:
        """Removes an item's text (a tombstone in the catalogue)."""
        row = self.items.ids.row(item_id)
        if row != UNKNOWN_ROW:
            self.items.titles[row] = NO_TITLE
            self.items.set_words(row, (), ())

    def remove_item_state(self, item_id: str) -> None:
        """Removes an item's embedding and counts. Its row stays, since histories refer to it."""
        row = self.items.ids.row(item_id)
        if row != UNKNOWN_ROW:
            self.items.set_embedding(row, None)
            self.items.set_counts(row, 0, 0, 0)
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
            self.users.history_grades[row] = 0
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
        grades = [FULL_GRADE * past.positive if past.grade is None else past.grade for past in recent]
        self.users.history_grades[row, : len(packed)] = grades
        self.users.history_lengths[row] = len(packed)


def _check_range(*numbers: int) -> None:
    """Before anything is stored, so that a refused state leaves the previous one whole.

    Raises:
        MalformedRecord: a number does not fit into the columns.
    """
    for number in numbers:
        if not -(2**63) <= number < 2**63:
            raise MalformedRecord(f"the number {number} is beyond 64 bits")


def _refresh(index: VectorIndex, changed: set[int], columns: ItemColumns | UserColumns) -> None:
    """Writes changed rows to the index, or takes them out of it, and empties the set. Can be repeated if it fails."""
    if not changed:
        return
    rows: Rows = np.fromiter(changed, np.int64, len(changed))
    wanted = columns.embedded[rows] & columns.is_searchable(rows)
    index.put(rows[wanted], normalised(columns.embeddings[rows[wanted]]))
    index.remove(rows[~wanted])
    changed.clear()
