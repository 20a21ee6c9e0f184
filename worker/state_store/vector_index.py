"""Nearest vectors by cosine: exact while few, inverted lists (FAISS IVFFlat) when many.

One thread owns an index. Only the training of inverted lists runs elsewhere, on a copy; the owner swaps the result in.
Three properties of FAISS shape this file: adding a known id makes a second entry (so ids are kept here), `nprobe` on an
index is shared state (so it goes with each call), and recall falls while an index grows (so it is measured, and the
lists are trained anew). A training that fails is tried again later; what there is goes on serving meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Protocol

import faiss
import numpy as np
import structlog
from numpy.typing import NDArray

from worker.state_store.retries import Retries
from worker.state_store.rows import grown
from worker.state_store.settings import TableSettings

log = structlog.get_logger(__name__)
Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]

NO_ID = -1
LEAST_PER_LIST = 39
"""Below so many entries per inverted list FAISS calls the clustering poor."""


class VectorIndex:
    """Cosine search over normalised vectors with integer ids, each id at most once.

    Args:
        dim: width of the vectors.
        settings: when to change from exact search, and how good inverted lists must stay.
        executor: trains inverted lists off the owner's thread; None trains on the spot.
        clock: monotonic seconds, for the pauses after a failed training.

    Attributes:
        training: how its attempts have gone.
        recall: moving average of the share of true neighbours found; 1 while search is exact.
    """

    def __init__(
        self,
        dim: int,
        settings: TableSettings | None = None,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings or TableSettings()
        self._executor = executor
        self._active: _Searchable = _ExactIndex(dim)
        self._training: Future[_ListsIndex] | None = None
        self._changed_in_training: set[int] = set()
        self._changes = 0
        self._changes_before_training = 0
        self._trained_for = 0
        self._searches = 0
        self.training = Retries(clock)
        self.recall = 1.0

    def __len__(self) -> int:
        return len(self._active)

    @property
    def exact(self) -> bool:
        """Whether every search compares with every entry."""
        return isinstance(self._active, _ExactIndex)

    def put(self, ids: Ids, vectors: Vectors) -> None:
        """Adds or replaces entries.

        Args:
            ids: (n,) distinct, not negative.
            vectors: (n, dim), each of length 1.
        """
        self._note_change(ids)
        self._active.put(ids, vectors)
        self._maintain()

    def remove(self, ids: Ids) -> None:
        """Removes entries; unknown ids are ignored."""
        self._note_change(ids)
        self._active.remove(ids)

    def search(self, queries: Vectors, count: int) -> tuple[NDArray[np.float32], Ids]:
        """The entries nearest to each query, nearest first.

        Args:
            queries: (q, dim), each of length 1.
            count: how many to find for each.

        Returns:
            Cosines (q, count) and ids (q, count), NO_ID where there are fewer entries.
        """
        self._maintain()
        found = self._active.search(queries, count)
        self._searches += 1
        if not self.exact and self._searches % self._settings.recall_check_interval == 0:
            self._measure_recall(queries[:1], found[1][0])
        return found

    def _note_change(self, ids: Ids) -> None:
        self._changes += len(ids)
        if self._training is not None:
            self._changed_in_training.update(ids.tolist())

    def _maintain(self) -> None:
        """Adopts lists that have been trained; starts training when it is due."""
        if self._training is not None:
            if self._training.done():
                self._finish_training(self._training)
            return
        due = self._trained_for * self._settings.retrain_growth
        outgrown = self.exact or len(self) > due or self._changes > due
        if len(self) > self._settings.exact_search_limit and outgrown and self.training.is_due:
            self._train()

    def _train(self) -> None:
        executor = self._executor or _OnTheSpot()
        self._changed_in_training = set()
        self._changes_before_training = self._changes
        try:
            self._training = executor.submit(_ListsIndex.train, *self._active.snapshot())
        except Exception as error:  # noqa: BLE001 - search goes on with what there is
            self._note_failed_training(error)
        else:
            self._maintain()

    def _finish_training(self, training: Future[_ListsIndex]) -> None:
        """Takes the result, or tries again after a pause."""
        self._training = None
        try:
            lists = training.result()
            trained_for = len(lists)
            self._adopt(lists)
        except Exception as error:  # noqa: BLE001 - search goes on with what there is
            self._note_failed_training(error)
        else:
            self.training.succeeded()
            self._trained_for = trained_for
            self._changes -= self._changes_before_training
        self._changed_in_training = set()

    def _note_failed_training(self, error: BaseException) -> None:
        self.training.failed()
        log.error(
            "training a search index failed; the one before goes on serving",
            entries=len(self),
            reason=repr(error),
            attempt_again_in_s=self.training.pause_s,
        )

    def _adopt(self, lists: _ListsIndex) -> None:
        """Applies to new lists what changed while they were trained, and swaps them in."""
        changed = np.fromiter(self._changed_in_training, np.int64, len(self._changed_in_training))
        there = self._active.contains(changed)
        lists.put(changed[there], self._active.vectors(changed[there]))
        lists.remove(changed[~there])
        if isinstance(self._active, _ListsIndex):
            lists.probes = max(lists.probes, self._active.probes)
        self._active = lists

    def _measure_recall(self, query: Vectors, found: Ids) -> None:
        """Compares one result with the exhaustive one; if recall is too low, more lists are probed."""
        lists = self._active
        if not isinstance(lists, _ListsIndex):
            return
        wanted = lists.search(query, len(found), exhaustively=True)[1][0]
        wanted = wanted[wanted != NO_ID]
        hit_share = float(np.isin(wanted, found).mean()) if len(wanted) else 1.0
        self.recall += 0.1 * (hit_share - self.recall)
        if self.recall < self._settings.least_recall and lists.probes < lists.list_count:
            lists.probes = min(2 * lists.probes, lists.list_count)
            self.recall = 1.0


class _OnTheSpot(Executor):
    """Runs what is submitted at once, in the caller's thread."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:  # noqa: ANN401 - as in `Executor`
        done: Future[Any] = Future()
        try:
            done.set_result(function(*arguments, **named))
        except Exception as error:  # noqa: BLE001 - it is the future's
            done.set_exception(error)
        return done


class _Searchable(Protocol):
    def __len__(self) -> int: ...
    def put(self, ids: Ids, vectors: Vectors) -> None: ...
    def remove(self, ids: Ids) -> None: ...
    def contains(self, ids: Ids) -> NDArray[np.bool_]: ...
    def vectors(self, ids: Ids) -> Vectors: ...
    def snapshot(self) -> tuple[Ids, Vectors]: ...
    def search(self, queries: Vectors, count: int) -> tuple[NDArray[np.float32], Ids]: ...


class _ExactIndex:
    """IndexFlatIP with a dense slot per id: replaced in place, the last entry fills a removed one's slot."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._index: Any = faiss.IndexFlatIP(dim)
        self._ids: Ids = np.empty(0, np.int64)
        self._slots: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def put(self, ids: Ids, vectors: Vectors) -> None:
        known = self.contains(ids)
        self._stored()[self._slots_of(ids[known])] = vectors[known]
        fresh = ids[~known]
        if not len(fresh):
            return
        first = len(self)
        self._ids = grown(self._ids, first + len(fresh))
        self._ids[first : first + len(fresh)] = fresh
        self._index.add(np.ascontiguousarray(vectors[~known]))  # may run out of memory: then nothing has changed
        self._slots.update(zip(fresh.tolist(), range(first, first + len(fresh)), strict=True))

    def remove(self, ids: Ids) -> None:
        stored = self._stored()
        before = len(self)
        for entry in ids.tolist():
            slot = self._slots.pop(entry, None)
            if slot is None:
                continue
            last = len(self)
            if slot != last:
                moved = int(self._ids[last])
                stored[slot] = stored[last]
                self._ids[slot] = moved
                self._slots[moved] = slot
        if len(self) < before:
            self._index.remove_ids(faiss.IDSelectorRange(len(self), before))

    def contains(self, ids: Ids) -> NDArray[np.bool_]:
        return np.fromiter((entry in self._slots for entry in ids.tolist()), np.bool_, len(ids))

    def vectors(self, ids: Ids) -> Vectors:
        return self._stored()[self._slots_of(ids)]

    def snapshot(self) -> tuple[Ids, Vectors]:
        return self._ids[: len(self)].copy(), self._stored().copy()

    def search(self, queries: Vectors, count: int) -> tuple[NDArray[np.float32], Ids]:
        similarities, slots = self._index.search(np.ascontiguousarray(queries), count)
        if len(self) < count:  # FAISS returns slot -1 for what is missing, which must not read the last id
            ids = np.append(self._ids[: len(self)], NO_ID)[slots]
            return similarities, ids
        return similarities, self._ids[slots]

    def _slots_of(self, ids: Ids) -> Ids:
        return np.fromiter((self._slots[entry] for entry in ids.tolist()), np.int64, len(ids))

    def _stored(self) -> Vectors:  # (entries, dim), FAISS's own memory
        if not self._index.ntotal:
            return np.empty((0, self._dim), np.float32)
        flat: Vectors = faiss.rev_swig_ptr(self._index.get_xb(), self._index.ntotal * self._dim)
        return flat.reshape(-1, self._dim)


class _ListsIndex:
    """IndexIVFFlat with a hashtable direct map, the one kind that can both replace and remove entries."""

    def __init__(self, index: faiss.IndexIVFFlat, ids: Ids) -> None:
        self._index = index
        self._ids = set(ids.tolist())
        self.list_count = int(index.nlist)
        self.probes = max(8, self.list_count // 10)

    @classmethod
    def train(cls, ids: Ids, vectors: Vectors) -> _ListsIndex:
        """Lists fitted to (entries, dim) vectors and filled with them."""
        dim = vectors.shape[1]
        list_count = max(1, min(int(2 * np.sqrt(len(ids))), len(ids) // LEAST_PER_LIST))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, list_count, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1  # LEAST_PER_LIST ensures enough, so FAISS need not warn
        index.train(vectors)
        index.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]  # not in its stubs
        index.add_with_ids(vectors, ids)
        return cls(index, ids)

    def __len__(self) -> int:
        return len(self._ids)

    def put(self, ids: Ids, vectors: Vectors) -> None:
        self.remove(ids)
        if len(ids):
            self._index.add_with_ids(np.ascontiguousarray(vectors), np.ascontiguousarray(ids))
            self._ids.update(ids.tolist())

    def remove(self, ids: Ids) -> None:
        there = np.ascontiguousarray(ids[self.contains(ids)])
        if len(there):
            self._index.remove_ids(faiss.IDSelectorArray(there))
            self._ids.difference_update(there.tolist())

    def contains(self, ids: Ids) -> NDArray[np.bool_]:
        return np.fromiter((entry in self._ids for entry in ids.tolist()), np.bool_, len(ids))

    def vectors(self, ids: Ids) -> Vectors:
        if not len(ids):
            return np.empty((0, int(self._index.d)), np.float32)
        found: Vectors = self._index.reconstruct_batch(np.ascontiguousarray(ids))
        return found

    def snapshot(self) -> tuple[Ids, Vectors]:
        ids = np.fromiter(self._ids, np.int64, len(self._ids))
        return ids, self.vectors(ids)

    def search(self, queries: Vectors, count: int, *, exhaustively: bool = False) -> tuple[NDArray[np.float32], Ids]:
        probes = self.list_count if exhaustively else self.probes
        parameters = faiss.SearchParametersIVF(nprobe=probes)  # type: ignore[call-arg]  # not in its stubs
        found: tuple[NDArray[np.float32], Ids] = self._index.search(
            np.ascontiguousarray(queries), count, params=parameters
        )
        return found
