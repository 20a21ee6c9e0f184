"""How long a search for a user's nearest users takes, by how many there are: `python -m benchmarks.retrieval`.

The users are synthetic, as LightGCN leaves them: mixtures of two of 2,000 communities (sizes by a power law, exponent
0.8), whose directions and whose scatter are strongest in few dimensions (standard deviations fall with the root of the
dimension's number), each with a scatter of 0.6 times its mixture's length. Every query is a user's own vector, as in a
request.

Compared with searches as they were: exact, and float32 lists (twice the root of their number) of which a tenth is read.
Times are processor times of the searching thread, which other programs on the machine do not lengthen; use one thread
(OMP_NUM_THREADS=1). Memory is what the process grows by, without what the training frees again.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import finish, parser
from runtime.process.allocator import return_freed_memory
from worker.state_store.settings import TableSettings
from worker.state_store.vector_index import VectorIndex

DIM: Final = 64
NEIGHBOURS: Final = 12
COMMUNITIES: Final = 2000
POWER: Final = 0.8
SCATTER: Final = 0.6
CHANGES: Final = 200
"""Users whose vectors change between two searches, in an update; as many as `worker.tables.update_batch`."""
MOVE: Final = 0.05
"""Standard deviation, per dimension and relative to it, by which a vector changes in an update."""
COMPARED: Final = 200
"""Queries whose recall is measured."""
ROUNDS: Final = 5
"""Parts of the requests; the times are the medians of theirs, since a neighbour on the machine may empty the caches."""
_CHUNK: Final = 100_000
Vectors = NDArray[np.float32]
Search = Callable[[Vectors], NDArray[np.int64]]


def main() -> None:
    """Measure every number of users, one after the other."""
    arguments = parser(__doc__)
    arguments.add_argument("--users", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    arguments.add_argument("--requests", type=int, default=5000)
    given = arguments.parse_args()
    faiss.omp_set_num_threads(1)
    finish(figures(given.users, given.requests), given.out)


def figures(user_counts: list[int], requests: int) -> dict[str, Any]:
    """Lists by number of users.

    Args:
        user_counts: how many users there are.
        requests: searches that are timed.
    """
    measured = [measure(users, requests) for users in user_counts]
    return {
        "users": user_counts,
        "dim": DIM,
        "neighbours": NEIGHBOURS,
        "requests": requests,
        **{name: [one[name] for one in measured] for name in measured[0]},
    }


def measure(users: int, requests: int) -> dict[str, float]:
    """The figures for so many users."""
    vectors = user_vectors(users)
    random = np.random.default_rng(1)
    queries = vectors[random.integers(users, size=requests)]
    truth = faiss.knn(queries[:COMPARED], vectors, NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)[1]
    before = {f"{name}_before": value for name, value in _before(vectors, queries, truth).items()}
    resident_before = _resident_bytes()
    index = VectorIndex(DIM, TableSettings(recall_check_interval=1_000_000_000))  # a check would count here
    started_s = time.thread_time()
    index.put(np.arange(users), vectors)
    trained_s = time.thread_time() - started_s
    bytes_per_user = (_resident_bytes() - resident_before) / users
    now = _searches(lambda query: index.search(query, NEIGHBOURS)[1], queries, truth)
    updates = []
    for _ in range(50):
        ids = random.choice(users, CHANGES, replace=False)
        moved = _normalised(vectors[ids] * (1 + MOVE * random.standard_normal((CHANGES, DIM))))
        started_s = time.thread_time()
        index.put(ids, moved)
        updates.append(1000 * (time.thread_time() - started_s))
    return {
        **now,
        "update_ms": float(np.median(updates)),
        "index_bytes_per_user": bytes_per_user,
        "training_s": trained_s,
        **before,
    }


def user_vectors(users: int, seed: int = 0) -> Vectors:
    """(users, DIM), each of length 1; see the head of this file."""
    random = np.random.default_rng(seed)
    spread = (1 + np.arange(DIM)) ** -0.5
    communities = _normalised(random.standard_normal((COMMUNITIES, DIM)) * spread)
    sizes = (1 + np.arange(COMMUNITIES)) ** -POWER
    vectors = np.empty((users, DIM), np.float32)
    for start in range(0, users, _CHUNK):
        count = min(_CHUNK, users - start)
        first, second = random.choice(COMMUNITIES, (2, count), p=sizes / sizes.sum())
        share = 0.5 + 0.5 * random.beta(2, 1, (count, 1))
        scatter = _normalised(random.standard_normal((count, DIM)) * spread)
        mixture = share * communities[first] + (1 - share) * communities[second]
        vectors[start : start + count] = _normalised(mixture + SCATTER * scatter)
    return vectors


def _before(vectors: Vectors, queries: Vectors, truth: NDArray[np.int64]) -> dict[str, float]:
    users = len(vectors)
    exact = faiss.IndexFlatIP(DIM)
    exact.add(vectors)
    asked = queries[: max(COMPARED, len(queries) * 10_000 // users)]  # a search may take 0.1 s
    untrained = _searches(lambda query: exact.search(query, NEIGHBOURS)[1], asked, truth)
    if users <= TableSettings().exact_search_limit:
        return {**untrained, "retrieval_ms_untrained": untrained["retrieval_ms_p50"]}
    lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, int(2 * np.sqrt(users)), faiss.METRIC_INNER_PRODUCT)
    lists.cp.niter, lists.cp.max_points_per_centroid = 5, 48  # as today, for a benchmark that does not take for ever
    lists.train(vectors)
    lists.add(vectors)
    lists.nprobe = max(8, lists.nlist // 10)
    trained = _searches(lambda query: lists.search(query, NEIGHBOURS)[1], queries, truth)
    return {**trained, "retrieval_ms_untrained": untrained["retrieval_ms_p50"]}


def _searches(search: Search, queries: Vectors, truth: NDArray[np.int64]) -> dict[str, float]:
    times_ms, found = [], []
    for place in range(len(queries)):
        query = queries[place : place + 1]
        started_s = time.thread_time()
        nearest = search(query)
        times_ms.append(1000 * (time.thread_time() - started_s))
        found.append(nearest[0])
    pairs = zip(truth, found, strict=False)
    p50, p99 = np.median([np.percentile(part, (50, 99)) for part in np.array_split(times_ms, ROUNDS)], axis=0)
    return {
        "retrieval_ms_p50": float(p50),
        "retrieval_ms_p99": float(p99),
        "recall": float(np.mean([np.isin(wanted, nearest).mean() for wanted, nearest in pairs])),
    }


def _normalised(vectors: NDArray[Any]) -> Vectors:
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _resident_bytes() -> int:
    gc.collect()
    return_freed_memory()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
