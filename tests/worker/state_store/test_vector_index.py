"""Search by cosine, exact and by inverted lists, under any order of changes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.state_store.inverted_lists import InvertedLists
from worker.state_store.settings import TableSettings
from worker.state_store.vector_index import NO_ID, VectorIndex

DIM = 8


def _unit(numbers):
    return (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).astype(np.float32)


def _random_unit(count, seed):
    return _unit(np.random.default_rng(seed).standard_normal((count, DIM)))


changes = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "remove", "begin reading", "end reading"]),
        st.sets(st.integers(0, 30), min_size=1, max_size=12),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(changes=changes, exact_limit=st.sampled_from([5, 100]), seed=st.integers(0, 1000))
def test_any_order_of_changes_leaves_what_a_dictionary_would_hold(changes, exact_limit, seed):
    """Puts, replacements and removals end in one entry per id with its latest vector, exact or in lists, whenever
    another thread reads the index.
    """
    index = VectorIndex(DIM, TableSettings(exact_search_limit=exact_limit))
    held: dict[int, np.ndarray] = {}
    reading = False
    for step, (action, members) in enumerate(changes):
        ids = np.array(sorted(members), np.int64)
        if action == "put":
            vectors = _random_unit(len(ids), seed + step)
            index.put(ids, vectors)
            held.update(zip(ids.tolist(), vectors, strict=True))
        elif action == "begin reading":
            index.search(_random_unit(1, seed), 1)  # training on the spot would wait for the one who reads
            reading = index._reading.acquire(blocking=False) or reading
        elif action == "end reading":
            if reading:
                index._reading.release()
            reading = False
        else:
            index.remove(ids)
            for entry in ids.tolist():
                held.pop(entry, None)
    if reading:
        index._reading.release()

    similarities, found = index.search(_random_unit(2, seed), len(held) + 2)

    assert len(index) == len(held)
    for query, row_similarities, row in zip(_random_unit(2, seed), similarities, found, strict=True):
        there = row != NO_ID
        assert sorted(row[there].tolist()) == sorted(held)
        expected = [float(query @ held[entry]) for entry in row[there].tolist()]
        np.testing.assert_allclose(row_similarities[there], expected, atol=1e-5 if index.exact else 2e-3)  # float16
        assert (np.diff(row_similarities[there]) <= 1e-6).all()


def test_an_empty_index_finds_nothing():
    """A search before anything is known answers with no ids."""
    _, found = VectorIndex(DIM).search(_random_unit(3, 0), 4)

    assert found.tolist() == [[NO_ID] * 4] * 3


def test_search_becomes_approximate_only_above_the_limit_and_stays_good():
    """Beyond the limit inverted lists answer, and find nearly all true neighbours."""
    vectors = _random_unit(3000, 1)
    index = VectorIndex(DIM, TableSettings(exact_search_limit=1000))
    index.put(np.arange(1000), vectors[:1000])
    assert index.exact

    index.put(np.arange(1000, 3000), vectors[1000:])
    assert not index.exact

    queries = _random_unit(50, 2)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    _, found = index.search(queries, 10)
    hits = np.mean([np.isin(row, near).mean() for row, near in zip(truth, found, strict=True)])
    assert hits > 0.8


class HeldExecutor(ThreadPoolExecutor):
    """Holds jobs back until `gate` is set."""

    def __init__(self):
        super().__init__(max_workers=1)
        self.gate = threading.Event()
        self.jobs = []

    def submit(self, job, /, *arguments, **named):
        self.jobs.append(super().submit(lambda: (self.gate.wait(), job(*arguments, **named))[1]))
        return self.jobs[-1]


@pytest.fixture
def held():
    """An executor that holds jobs back; they end with the test."""
    with HeldExecutor() as executor:
        yield executor
        executor.gate.set()


def test_changes_made_while_lists_are_trained_are_in_them(held):
    """Training runs on a copy elsewhere; what was put or removed meanwhile is brought in when the lists take over."""
    index = VectorIndex(DIM, TableSettings(exact_search_limit=100), executor=held)
    vectors = _random_unit(200, 3)
    index.put(np.arange(200), vectors)
    assert index.exact

    replaced = _random_unit(1, 4)
    index.put(np.array([7]), replaced)
    index.put(np.array([500]), -replaced)
    index.remove(np.array([8]))
    held.gate.set()
    held.jobs[0].result()
    _, found = index.search(np.concatenate([replaced, -replaced, vectors[8:9]]), 300)

    assert not index.exact
    assert found[:2, 0].tolist() == [7, 500]
    assert 8 not in found
    assert len(index) == 200


def test_recall_is_measured_elsewhere_and_changes_wait_meanwhile(held):
    """A search does not wait for its comparison with exact search; what changes during it is found right after."""
    index = VectorIndex(DIM, TableSettings(exact_search_limit=100, recall_check_interval=1), executor=held)
    vectors = _random_unit(2000, 3)
    index.put(np.arange(2000), vectors)
    held.gate.set()
    held.jobs[0].result()
    index.maintain()
    held.gate.clear()
    index._active.probes = 1
    queries = _random_unit(20, 6)
    for query in queries:
        index.search(query[None], 12)
    assert len(held.jobs) == 2

    with index._reading:  # as the comparison does
        index.put(np.array([7]), queries[:1])
        index.remove(np.array([8]))
        assert index._active.contains(np.array([8])).all()
    assert index.search(queries[:1], 1)[1].tolist() == [[7]]
    assert not index._active.contains(np.array([8])).any()
    held.gate.set()
    held.jobs[1].result()
    index.maintain()
    assert index._active.probes == 2


def test_many_changes_that_waited_are_applied_over_several_searches():
    """In their order, a few hundred rows before each: the first request after a long read is not late for them all."""
    index = VectorIndex(DIM)
    vectors = _random_unit(300, 4)
    with index._reading:
        for first in range(0, 3_000, 300):
            index.put(np.arange(first, first + 300), vectors)
        index.remove(np.array([7]))
    sizes = []
    while index._waiting:
        index.search(vectors[:1], 1)
        sizes.append(len(index))
    assert sizes == [600, 1_200, 1_800, 2_400, 3_000, 2_999]
    assert not index._active.contains(np.array([7])).any()


@pytest.mark.parametrize("wanted", [0.8, 0.97])
def test_no_more_lists_are_read_than_find_the_wanted_share(wanted):
    """On vectors in clusters a few lists are enough, and they are enough for other queries too."""
    random = np.random.default_rng(8)
    vectors = _unit(np.repeat(_random_unit(100, 9), 60, axis=0) + 0.25 * random.standard_normal((6000, DIM)))
    lists = InvertedLists.train(np.arange(6000), vectors, wanted)
    queries = vectors[::20]

    assert lists.recall >= wanted
    assert lists.measured_recall(queries) > wanted - 0.03
    assert lists.probes < lists.list_count / 4


def test_changes_that_waited_and_cannot_be_applied_are_tried_again(monkeypatch):
    """Whoever searches is answered; the changes are applied after a pause."""
    clock = Clock()
    index = VectorIndex(DIM, None, None, clock)
    vectors = _random_unit(4, 1)
    index.put(np.array([1]), vectors[:1])
    with index._reading:
        index.put(np.array([2]), vectors[1:2])
    with monkeypatch.context() as short, structlog.testing.capture_logs() as lines:
        short.setattr(index._active._index, "add", _out_of_memory)
        assert index.search(vectors[1:2], 1)[1].tolist() == [[1]]
    assert len(lines) == 1
    clock.now_s += 5
    assert index.search(vectors[1:2], 1)[1].tolist() == [[2]]


def test_low_recall_makes_the_search_look_into_more_lists():
    """Where the watch finds true neighbours missing, the number of lists looked into grows until recall is good."""
    index = VectorIndex(DIM, TableSettings(exact_search_limit=500, least_recall=0.99, recall_check_interval=1))
    vectors = _random_unit(3000, 5)
    index.put(np.arange(3000), vectors)
    queries = _random_unit(400, 6)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]

    def recall():
        found = [index.search(query[None], 10)[1][0] for query in queries]
        return np.mean([np.isin(near, row).mean() for near, row in zip(truth, found, strict=True)])

    before = recall()
    after = recall()

    assert after >= before
    assert after > 0.97


def test_lists_are_trained_anew_after_growth():
    """An index that has outgrown its lists gets more of them."""
    index = VectorIndex(DIM, TableSettings(exact_search_limit=100, retrain_growth=1.5))
    vectors = _random_unit(1000, 7)
    index.put(np.arange(200), vectors[:200])
    first = index._active

    index.put(np.arange(200, 1000), vectors[200:])

    assert index._active is not first
    assert index._active.list_count > first.list_count


class Clock:
    """Time that goes on when told to."""

    now_s = 0.0

    def __call__(self):
        return self.now_s


class Trainer(ThreadPoolExecutor):
    """Fails so many times before it trains."""

    def __init__(self, failures):
        super().__init__(1)
        self.failures = failures
        self.attempts = 0

    def submit(self, function, /, *arguments, **named):
        self.attempts += 1
        if self.attempts <= self.failures:
            function = _out_of_memory
        training = super().submit(function, *arguments, **named)
        wait([training])
        return training


def _out_of_memory(*_):
    raise MemoryError("std::bad_alloc")


def test_a_training_that_fails_is_tried_again_in_growing_pauses_and_search_goes_on():
    """Each failure is logged once with its reason; searches find what they did before; then lists are adopted."""
    clock = Clock()
    vectors = _random_unit(200, 1)
    with Trainer(failures=3) as executor, structlog.testing.capture_logs() as lines:
        index = VectorIndex(DIM, TableSettings(exact_search_limit=10), executor, clock)
        index.put(np.arange(200), vectors)
        attempts = []
        for _ in range(60):
            _, found = index.search(vectors[:1], 1)
            assert found[0][0] == 0
            attempts.append(executor.attempts)
            clock.now_s += 1

    changes = [second for second in range(1, 60) if attempts[second] != attempts[second - 1]]
    assert changes == [5, 15, 35]
    assert not index.exact
    assert [line["reason"] for line in lines if line["log_level"] == "error"] == ["MemoryError('std::bad_alloc')"] * 3
    assert (index.training.failures, index.training.failing_for_s) == (3, 0.0)


def test_a_training_on_the_spot_that_fails_leaves_search_exact():
    """Without an executor the same holds."""
    clock = Clock()
    index = VectorIndex(DIM, TableSettings(exact_search_limit=10), None, clock)
    index._active.snapshot, snapshot = _out_of_memory, index._active.snapshot
    index.put(np.arange(50), _random_unit(50, 1))
    assert index.exact
    assert index.search(_random_unit(50, 1)[:1], 1)[1][0][0] == 0
    index._active.snapshot = snapshot
    clock.now_s += 5
    index.search(_random_unit(1, 1), 1)
    assert not index.exact


def test_a_training_that_is_cancelled_at_the_end_is_no_error():
    """Whoever searches while the program ends gets an answer."""
    executor = ThreadPoolExecutor(1)
    blocked = threading.Event()
    executor.submit(blocked.wait)
    index = VectorIndex(DIM, TableSettings(exact_search_limit=10), executor)
    index.put(np.arange(50), _random_unit(50, 1))
    executor.shutdown(wait=False, cancel_futures=True)
    blocked.set()

    assert index.search(_random_unit(50, 1)[:1], 1)[1][0][0] == 0


def test_entries_that_could_not_be_added_can_be_added_again(monkeypatch):
    """Running out of memory while adding leaves the index as it was."""
    index = VectorIndex(DIM)
    vectors = _random_unit(4, 1)
    index.put(np.array([1]), vectors[:1])
    with monkeypatch.context() as short:
        short.setattr(index._active._index, "add", _out_of_memory)
        with pytest.raises(MemoryError):
            index.put(np.array([2, 3]), vectors[1:3])
    assert len(index) == 1

    index.put(np.array([2, 3]), vectors[1:3])
    assert index.search(vectors[1:2], 1)[1].tolist() == [[2]]
