"""Search by comparing with every entry, and what every kind of search here has in common."""

from __future__ import annotations

from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from worker.state_store.rows import grown

Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]

NO_ID = -1
_NO_SLOT = -1


class Searchable(Protocol):
    """Entries with distinct ids. Ids are row numbers: columns as long as the largest id are kept."""

    def __len__(self) -> int: ...

    def put(self, ids: Ids, vectors: Vectors) -> None:
        """Adds or replaces entries with distinct ids."""

    def remove(self, ids: Ids) -> None:
        """Removes entries; unknown ids are ignored."""

    def contains(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of them are entries."""

    def vectors(self, ids: Ids) -> Vectors:
        """(n, dim) of entries."""

    def snapshot(self) -> tuple[Ids, Vectors]:
        """A copy of everything."""

    def search(self, queries: Vectors, count: int) -> tuple[NDArray[np.float32], Ids]:
        """As `VectorIndex.search`."""


class ExactIndex:
    """IndexFlatIP with a dense slot per id: replaced in place, the last entry fills a removed one's slot."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._index: Any = faiss.IndexFlatIP(dim)
        self._ids: Ids = np.empty(0, np.int64)  # by slot
        self._slots = np.empty(0, np.int32)  # by id

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def put(self, ids: Ids, vectors: Vectors) -> None:
        """Adds or replaces entries with distinct ids."""
        known = self.contains(ids)
        self._stored()[self._slots[ids[known]]] = vectors[known]
        fresh = ids[~known]
        if not len(fresh):
            return
        first = len(self)
        self._ids = grown(self._ids, first + len(fresh))
        self._slots = grown(self._slots, int(fresh.max()) + 1, _NO_SLOT)
        self._index.add(np.ascontiguousarray(vectors[~known]))  # may run out of memory: then nothing has changed
        self._ids[first : first + len(fresh)] = fresh
        self._slots[fresh] = np.arange(first, first + len(fresh))

    def remove(self, ids: Ids) -> None:
        """Removes entries; unknown ids are ignored."""
        stored = self._stored()
        before = last = len(self)
        for entry in ids[self.contains(ids)].tolist():
            last -= 1
            slot, moved = int(self._slots[entry]), int(self._ids[last])
            stored[slot] = stored[last]
            self._ids[slot] = moved
            self._slots[moved] = slot
            self._slots[entry] = _NO_SLOT
        if last < before:
            self._index.remove_ids(faiss.IDSelectorRange(last, before))

    def contains(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of them are entries."""
        there = ids < len(self._slots)
        there[there] = self._slots[ids[there]] != _NO_SLOT
        return there

    def vectors(self, ids: Ids) -> Vectors:
        """(n, dim) of entries."""
        return self._stored()[self._slots[ids]]

    def snapshot(self) -> tuple[Ids, Vectors]:
        """A copy of everything."""
        return self._ids[: len(self)].copy(), self._stored().copy()

    def search(self, queries: Vectors, count: int) -> tuple[NDArray[np.float32], Ids]:
        """As `VectorIndex.search`."""
        similarities, slots = self._index.search(np.ascontiguousarray(queries), count)
        if len(self) < count:  # FAISS returns slot -1 for what is missing, which must not read the last id
            ids = np.append(self._ids[: len(self)], NO_ID)[slots]
            return similarities, ids
        return similarities, self._ids[slots]

    def _stored(self) -> Vectors:  # (entries, dim), FAISS's own memory
        if not self._index.ntotal:
            return np.empty((0, self._dim), np.float32)
        flat: Vectors = faiss.rev_swig_ptr(self._index.get_xb(), self._index.ntotal * self._dim)
        return flat.reshape(-1, self._dim)
