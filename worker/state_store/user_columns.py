"""Users by row: embedding, counts, history. No Python object for any of them, the id included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.arrays import grow
from runtime.text_column import TextColumn
from worker.state_store.columns import EmbeddedColumns, Rows
from worker.state_store.hash_rows import Hashes, HashRows
from worker.state_store.histories import Histories
from worker.state_store.rows import UNKNOWN_ROW


class UserIds:
    """Rows of user ids, dense from 0; rows of removed ids are used again once `reuse` says so.

    Ids are found by Python's hash of their bytes, 64 bits under a key that is drawn when the process starts: nobody can
    choose an id that is taken for another's, and among ten million two are alike with a probability of 3e-6.
    """

    def __init__(self) -> None:
        self._rows = HashRows()
        self._texts = TextColumn()
        self._retired: list[int] = []
        self._free: list[int] = []
        self._count = 0
        self.high_water = 0
        """One more than the largest row ever used: the length that columns need."""

    def __len__(self) -> int:
        return self._count

    def row(self, name: str) -> int:
        """The id's row, or UNKNOWN_ROW."""
        key = name.encode()
        row = self._rows.find_one(hash(key) & 0xFFFF_FFFF_FFFF_FFFF)
        return row if row != UNKNOWN_ROW and self._texts.get(row) == key else UNKNOWN_ROW

    def id_of(self, row: int) -> str:
        """The id that holds a row."""
        return self._texts.get(row).decode()

    def ids_of(self, rows: Rows) -> list[str]:
        """The ids that hold rows."""
        return [text.decode() for text in self._texts.get_many(rows)]

    def in_use(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows an id holds."""
        held: NDArray[np.bool_] = self._texts.length[rows] > 0
        return held

    def texts(self, start: int, end: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """The ids of rows, end to end, and their lengths; 0 for a row that is free."""
        return self._texts.part(start, end)

    def intern(self, keys: Sequence[bytes]) -> tuple[Rows, NDArray[np.bool_]]:
        """Rows of distinct ids in UTF-8, and which of them had none before."""
        hashes = _hashes(keys)
        rows = self._rows.find(hashes)
        new = rows == UNKNOWN_ROW
        count = int(new.sum())
        if count:
            taken = self._free[len(self._free) - count :] if count <= len(self._free) else list(self._free)
            del self._free[len(self._free) - len(taken) :]
            fresh = range(self.high_water, self.high_water + count - len(taken))
            rows[new] = [*taken, *fresh]
            self.high_water += len(fresh)
            self._rows.add(hashes[new], rows[new])
            self._texts.put(rows[new], [keys[at] for at in np.flatnonzero(new).tolist()])
            self._count += count
        return rows, new

    def forget(self, rows: Rows) -> None:
        """Retires the ids of distinct rows, all of them in use. `reuse` makes the rows available."""
        self._rows.remove(_hashes(self._texts.get_many(rows)))
        self._texts.put(rows, [b""] * len(rows))
        self._retired += rows.tolist()
        self._count -= len(rows)

    def reuse(self) -> None:
        """Retired rows may be given to other ids: nobody refers to them any more."""
        self._free += self._retired
        self._retired.clear()


class UserColumns(EmbeddedColumns):
    """Users."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.ids = UserIds()
        self.histories = Histories()
        self.versions: NDArray[np.int64] = np.zeros(0, np.int64)  # (rows,) of the embedding, 0 for none
        self.event_times_ms: NDArray[np.int64] = np.zeros(0, np.int64)  # (rows,) of the newest interaction in the state
        self.partitions: NDArray[np.int32] = np.zeros(0, np.int32)  # (rows,) of the topic that tells of the user

    def is_searchable(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether the user has a history."""
        remembered: NDArray[np.bool_] = self.histories.lengths[rows] > 0
        return remembered

    def embedding_stamp(self, user_id: str) -> tuple[int, int] | None:
        """Version of the user's embedding and event time of the newest interaction in it; None without embedding."""
        row = self.ids.row(user_id)
        if row == UNKNOWN_ROW or not self.embedded[row]:
            return None
        return int(self.versions[row]), int(self.event_times_ms[row])

    def in_partition(self, partition: int) -> Rows:
        """The rows of the users of one partition."""
        candidates = np.flatnonzero(self.partitions[: self.ids.high_water] == partition)
        return candidates[self.ids.in_use(candidates)]

    def remove(self, rows: Rows) -> Rows:
        """Gives up distinct rows, all of them in use. Returns the items that their histories mentioned."""
        self.ids.forget(rows)
        mentioned: Rows = self.histories.entries_of(rows)[0] >> 1
        self.set_embeddings(rows, np.zeros((len(rows), self.embeddings.shape[1]), np.float32))
        self.counts[rows] = 0
        self.versions[rows] = 0
        self.event_times_ms[rows] = 0
        self.histories.put(rows, np.zeros(len(rows), np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))
        return mentioned

    def grow(self, rows: int) -> None:
        """Makes room for rows in every column."""
        super().grow(rows)
        self.histories.grow(len(self.embedded))
        grow(self.versions, rows)
        grow(self.event_times_ms, rows)
        grow(self.partitions, rows)


def _hashes(keys: Sequence[bytes]) -> Hashes:
    return np.fromiter(map(hash, keys), np.int64, len(keys)).view(np.uint64)
