"""Approximate search: inverted lists of float16 vectors (FAISS), of which each search reads a few.

Lists grow in number with the square root of the entries. How many of them a search reads is measured when they are
trained: as few as find the wanted share of the true neighbours of a sample. That number hardly depends on how many
lists there are, so a search costs about the square root of the entries; with a fixed share of the lists it would cost
in proportion to the entries.
"""

from __future__ import annotations

from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from worker.state_store.exact_index import Ids, Vectors
from worker.state_store.rows import grown

LISTS_PER_ROOT: Final = 3
"""Lists per square root of the entries: reading the lists' centres then costs about as much as reading lists."""
LEAST_PER_LIST: Final = 39
"""Below so many entries per list FAISS calls the clustering poor."""
MOST_PER_LIST: Final = 48
"""Entries per list that the clustering looks at; more of them take longer and hardly change the lists."""
CLUSTERING_ROUNDS: Final = 5
NEIGHBOURS: Final = 12
"""Neighbours in a measurement of recall: about as many as retrieval asks for."""
_QUERIES: Final = 128
"""In the measurement after a training."""
_PROBES: Final = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


class InvertedLists:
    """IndexIVFScalarQuantizer with a hashtable direct map, the kind that can both replace and remove entries.

    Attributes:
        list_count: how many lists there are.
        probes: how many of them a search reads.
        recall: share of the true neighbours found, as measured after the training.
    """

    def __init__(self, index: Any) -> None:  # noqa: ANN401 - FAISS's stubs lack half of the class
        self._index = index
        self._held = np.empty(0, np.bool_)  # by id
        self.list_count = int(index.nlist)
        self.probes = min(_PROBES[0], self.list_count)
        self.recall = 1.0

    @classmethod
    def train(cls, ids: Ids, vectors: Vectors, wanted_recall: float) -> InvertedLists:
        """Lists fitted to vectors and filled with them.

        Args:
            ids: (entries,) distinct.
            vectors: (entries, dim), each of length 1.
            wanted_recall: share of true neighbours that the measured number of probes finds at least.
        """
        dim = vectors.shape[1]
        list_count = max(1, min(int(LISTS_PER_ROOT * np.sqrt(len(ids))), len(ids) // LEAST_PER_LIST))
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dim),
            dim,
            list_count,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,  # the vectors themselves, not what is left of them without their list's centre
        )
        index.cp.min_points_per_centroid = 1  # LEAST_PER_LIST ensures enough, so FAISS need not warn
        index.cp.max_points_per_centroid = MOST_PER_LIST
        index.cp.niter = CLUSTERING_ROUNDS
        index.train(vectors)
        index.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]  # not in its stubs
        lists = cls(index)
        lists.put(ids, vectors)
        lists._choose_probes(vectors, wanted_recall)
        return lists

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def put(self, ids: Ids, vectors: Vectors) -> None:
        """Adds or replaces entries with distinct ids."""
        self.remove(ids)
        if len(ids):
            self._held = grown(self._held, int(ids.max()) + 1)
            self._index.add_with_ids(np.ascontiguousarray(vectors), np.ascontiguousarray(ids))
            self._held[ids] = True

    def remove(self, ids: Ids) -> None:
        """Removes entries; unknown ids are ignored."""
        there = np.ascontiguousarray(ids[self.contains(ids)])
        if len(there):
            self._index.remove_ids(faiss.IDSelectorArray(there))
            self._held[there] = False

    def contains(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of them are entries."""
        there = ids < len(self._held)
        there[there] = self._held[ids[there]]
        return there

    def vectors(self, ids: Ids) -> Vectors:
        """(n, dim) of entries, rounded to float16."""
        if not len(ids):
            return np.empty((0, int(self._index.d)), np.float32)
        found: Vectors = self._index.reconstruct_batch(np.ascontiguousarray(ids))
        return found

    def snapshot(self) -> tuple[Ids, Vectors]:
        """A copy of everything."""
        ids = np.flatnonzero(self._held)
        return ids, self.vectors(ids)

    def search(self, queries: Vectors, count: int, probes: int | None = None) -> tuple[NDArray[np.float32], Ids]:
        """As `VectorIndex.search`, reading so many lists; None: `self.probes`."""
        parameters = faiss.SearchParametersIVF(nprobe=probes or self.probes)  # type: ignore[call-arg]  # not in stubs
        found: tuple[NDArray[np.float32], Ids] = self._index.search(
            np.ascontiguousarray(queries), count, params=parameters
        )
        return found

    def measured_recall(self, queries: Vectors) -> float:
        """Share of the true neighbours that searches find: compared with reading every list."""
        return self._share_found(queries, self.search(queries, NEIGHBOURS, self.list_count)[1])

    def read_more(self) -> None:
        """Doubles the lists that a search reads."""
        self.probes = min(2 * self.probes, self.list_count)

    def _choose_probes(self, vectors: Vectors, wanted_recall: float) -> None:
        random = np.random.default_rng(len(vectors))
        queries = vectors[random.choice(len(vectors), min(_QUERIES, len(vectors)), replace=False)]
        truth = self.search(queries, NEIGHBOURS, self.list_count)[1]
        for probes in (*(number for number in _PROBES if number < self.list_count), self.list_count):
            self.probes = probes
            self.recall = self._share_found(queries, truth)
            if self.recall >= wanted_recall:
                return

    def _share_found(self, queries: Vectors, truth: Ids) -> float:
        found = self.search(queries, NEIGHBOURS)[1]
        hits = (truth[:, :, None] == found[:, None, :]).any(axis=2)
        there = truth >= 0
        return float(hits[there].mean()) if there.any() else 1.0
