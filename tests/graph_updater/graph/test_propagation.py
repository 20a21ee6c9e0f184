"""The kept embeddings against LGConv over the same graph."""

from __future__ import annotations

import numpy as np
import pytest
from graph_parts import DIM, NODES, USERS, Fresh, PlainGraph, epsilon_bounds, reference, steps
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_updater.graph.propagation import InvalidLayerWeights

layer_weights = st.sampled_from([(0.5, 0.5), (0.0, 0.3, 0.7), (0.25, 0.25, 0.25, 0.25), (1.0, 0.0, 0.5, 0.0, 2.0)])


@settings(max_examples=50, deadline=None)
@given(steps, st.integers(1, 20), layer_weights)
def test_without_epsilon_embeddings_are_lightgcns(stream, batch, alphas):
    """After any stream of inserts, removals and re-weights, in any batches, embeddings equal LGConv's to 1e-5."""
    fresh, plain = Fresh(alphas=alphas), PlainGraph()
    fresh.feed(stream, batch)
    plain.feed(stream)
    np.testing.assert_allclose(fresh.embeddings(), reference(plain.weights(), fresh.base, alphas), atol=1e-5)


def errors(fresh, edges):
    """How far each embedding is from LGConv's over the same edges: (nodes,)."""
    return np.linalg.norm(fresh.embeddings() - reference(edges, fresh.base, fresh.alphas), axis=1)


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(1, 20), layer_weights, st.sampled_from([0.01, 0.1]))
def test_with_epsilon_every_node_is_within_its_bound(stream, batch, alphas, epsilon):
    """No error exceeds what `error_bounds` says of the node, nor what epsilon allows it by definition."""
    fresh, plain = Fresh(epsilon=epsilon, alphas=alphas), PlainGraph()
    fresh.feed(stream, batch)
    plain.feed(stream)
    error, bound = errors(fresh, plain.weights()), fresh.propagation.error_bounds()
    assert (error <= bound + 1e-5).all()
    # Limits are of the moment at which a node was last looked at: a little beside those of the end.
    allowed = epsilon_bounds(plain.weights(), fresh.base, alphas, epsilon)
    assert (error <= 1.5 * allowed + 1e-5).all()
    assert (bound <= 3.0 * allowed + 1e-5).all()


@pytest.mark.parametrize("epsilon", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_errors_are_of_the_size_of_epsilon(epsilon, skew):
    """With items alike and with a few hubs: below epsilon at every node, a quarter of it typically, not zero."""
    fresh, plain = Fresh(epsilon=epsilon, nodes=400, dim=16), PlainGraph()
    stream = busy_stream(6000, users=150, nodes=400, skew=skew)
    fresh.feed(stream, batch=64)
    plain.feed(stream)
    relative = errors(fresh, plain.weights()) / np.linalg.norm(fresh.embeddings(), axis=1)
    assert relative.max() < 0.8 * epsilon
    assert epsilon / 12 < np.sqrt((relative**2).mean()) < epsilon / 3


def busy_stream(count, users, nodes, skew=0.0, remove=0.2):
    """Insertions and removals; the k-th item is met in proportion to k^-skew."""
    random = np.random.default_rng(11)
    popularity = np.arange(1, nodes - users + 1) ** -skew
    columns = (
        random.integers(0, users, count),
        random.choice(np.arange(users, nodes), count, p=popularity / popularity.sum()),
        random.choice([0.0, 1.0, 2.0], count, p=[remove, 0.5, 0.5 - remove]),
    )
    return [(*step, time) for time, step in enumerate(zip(*(column.tolist() for column in columns), strict=True))]


@settings(max_examples=25, deadline=None)
@given(steps, st.integers(300, 600), st.sampled_from([0.0, 0.1]))
def test_expired_edges_leave_the_embeddings_too(stream, now_ms, epsilon):
    """With a sliding window embeddings stay those of the edges that are left, exactly or within the bound."""
    fresh, plain = Fresh(epsilon=epsilon, window_ms=256), PlainGraph()
    fresh.feed(stream)
    plain.feed(stream)
    fresh.expire(now_ms)
    alive = plain.weights(keep=lambda time: time > now_ms - 256)
    allowed = epsilon_bounds(alive, fresh.base, fresh.alphas, epsilon)
    assert (errors(fresh, alive) <= 1.5 * allowed + 1e-5).all()


HALF_LIFE_MS = 8
"""The steps' times span 50 of them: more than the landmark may lag behind."""


@settings(max_examples=25, deadline=None)
@given(steps, st.sampled_from([0.0, 0.1]))
def test_decayed_weights_give_the_embeddings_of_decayed_weights(stream, epsilon):
    """Embeddings equal LGConv's with every weight halved per half-life, also when the landmark moves in mid-stream."""
    fresh, plain = Fresh(epsilon=epsilon, half_life_ms=HALF_LIFE_MS), PlainGraph()
    stream = [(0, USERS, 1.0, 0), *sorted(stream, key=lambda step: step[3]), (0, USERS + 1, 1.0, 401)]
    fresh.feed(stream)
    plain.feed(stream)
    assert fresh.graph.landmark_ms > 0
    assert (errors(fresh, decayed(plain, 401)) <= fresh.propagation.error_bounds() + 1e-4).all()


def decayed(plain, now_ms, half_life_ms=HALF_LIFE_MS):
    """The edges with every weight halved per half-life."""
    return plain.weights(size=lambda weight, time: weight * 2.0 ** ((time - now_ms) / half_life_ms))


@pytest.mark.parametrize("epsilon", [0.05, 0.2])
def test_errors_stay_of_the_size_of_epsilon_while_weights_decay(epsilon):
    """After forty half-lives, with a landmark that moved, errors are what they are without decay."""
    fresh, plain = Fresh(epsilon=epsilon, nodes=100, dim=16, half_life_ms=200), PlainGraph()
    stream = busy_stream(8000, users=40, nodes=100)
    fresh.feed(stream, batch=64)
    plain.feed(stream)
    assert fresh.graph.landmark_ms > 32 * 200
    relative = errors(fresh, decayed(plain, 8000, 200)) / np.linalg.norm(fresh.embeddings(), axis=1)
    assert relative.max() < epsilon
    assert epsilon / 12 < np.sqrt((relative**2).mean()) < epsilon / 2


@pytest.mark.parametrize("half_lives", [3, 10, 20, 50])
def test_who_returns_after_many_half_lives_is_within_epsilon(half_lives):
    """The first edge after a long pause outweighs all before it; what it meets gets no share of the old size."""
    fresh, plain = Fresh(epsilon=0.1, half_life_ms=HALF_LIFE_MS), PlainGraph()
    now_ms = half_lives * HALF_LIFE_MS
    stream = [(0, USERS, 0.25, 0), (0, USERS + 1, 1.0, now_ms)]
    fresh.feed(stream)
    plain.feed(stream)
    edges = decayed(plain, now_ms)
    allowed = epsilon_bounds(edges, fresh.base, fresh.alphas, 0.1)
    assert (errors(fresh, edges) <= 1.5 * allowed + 1e-5).all()


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_moving_the_landmark_changes_nothing(epsilon):
    """Before, at and after the move embeddings are bit for bit those of a graph whose landmark never moves."""
    moving, still = (
        Fresh(epsilon=epsilon, half_life_ms=HALF_LIFE_MS, nodes=60, dim=8, alphas=(0.25, 0.25, 0.5)) for _ in range(2)
    )
    still.graph.landmark_ms = landmark_ms = 7 + 30 * HALF_LIFE_MS
    stream = busy_stream(320, users=20, nodes=60)
    landmarks = set()
    for begin in range(0, len(stream), 8):
        for fresh in (moving, still):
            fresh.feed(stream[begin : begin + 8], batch=8)
        landmarks.add(moving.graph.landmark_ms)
        np.testing.assert_array_equal(moving.embeddings(), still.embeddings())
    assert len(landmarks) > 1
    assert still.graph.landmark_ms == landmark_ms


def test_sparse_streams_over_many_half_lives_stay_within_epsilon():
    """With about one event per half-life, where limits go out of date soonest, most streams keep well below epsilon."""
    random, worst = np.random.default_rng(5), []
    for _ in range(200):
        count = random.integers(1, 60)
        users, items = random.integers(0, USERS, count), random.integers(USERS, NODES, count)
        weights, times = random.choice([0.0, 0.25, 1.0, 3.0], count), np.sort(random.integers(1, 400, count))
        middle = zip(users.tolist(), items.tolist(), weights.tolist(), times.tolist(), strict=True)
        stream = [(0, USERS, 1.0, 0), *middle, (0, USERS + 1, 1.0, 401)]
        fresh, plain = Fresh(epsilon=0.1, half_life_ms=HALF_LIFE_MS), PlainGraph()
        fresh.feed(stream)
        plain.feed(stream)
        edges = decayed(plain, 401)
        worst.append((errors(fresh, edges) / np.linalg.norm(reference(edges, fresh.base, fresh.alphas), axis=1)).max())
    assert np.quantile(worst, 0.7) < 0.6 * 0.1


@settings(max_examples=25, deadline=None)
@given(steps, st.lists(st.integers(0, NODES - 1), max_size=5))
def test_a_base_embedding_may_come_later(stream, late):
    """A node whose x⁽⁰⁾ arrives after its edges ends where it would had x⁽⁰⁾ been there from the start."""
    fresh = Fresh()
    nodes = np.array(late, np.int32)
    fresh.propagation.set_base(nodes, np.zeros((nodes.size, DIM), np.float32))
    fresh.feed(stream)
    fresh.propagation.set_base(nodes, fresh.base[nodes])
    plain = PlainGraph()
    plain.feed(stream)
    np.testing.assert_allclose(fresh.embeddings(), reference(plain.weights(), fresh.base, fresh.alphas), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(steps, steps)
def test_recomputing_is_exact_and_the_stream_goes_on_from_there(before, after):
    """`recompute` gives LGConv's embeddings whatever was pending, and later pushes build on it."""
    fresh, plain = Fresh(epsilon=0.1), PlainGraph()
    fresh.feed(before)
    plain.feed(before)
    fresh.propagation.recompute()
    np.testing.assert_allclose(fresh.embeddings(), reference(plain.weights(), fresh.base, fresh.alphas), atol=1e-5)
    fresh.feed(after)
    plain.feed(after)
    allowed = epsilon_bounds(plain.weights(), fresh.base, fresh.alphas, 0.1)
    assert (errors(fresh, plain.weights()) <= 1.5 * allowed + 1e-5).all()


def test_repair_takes_rounding_errors_out_of_the_sums():
    """Sums that have drifted are right again once `repair` has been round all nodes."""
    fresh = Fresh()
    stream = [(user, USERS + item, 1.0, 1) for user in range(USERS) for item in range(user, NODES - USERS)]
    fresh.feed(stream)
    exact = fresh.embeddings()
    fresh.propagation.tables.sums[:] += 1e-2
    assert np.abs(fresh.embeddings() - exact).max() > 1e-3
    for _ in range(5):
        fresh.propagation.repair(NODES // 4)
    np.testing.assert_allclose(fresh.embeddings(), exact, atol=1e-5)


@pytest.mark.parametrize("node_is_item", [False, True])
def test_sums_are_exact_when_most_of_a_degree_goes(node_is_item):
    """Where edges a million times heavier than the rest are taken away, the rest is left without their rounding."""
    fresh, plain = Fresh(), PlainGraph()
    others = range(USERS) if node_is_item else range(USERS, NODES)
    pairs = [(other, USERS) if node_is_item else (0, other) for other in others]
    light, heavy = pairs[:2], pairs[2:]
    stream = [(*pair, 1.0, 1) for pair in light] + [(*pair, 4.0**12, 2) for pair in heavy]
    stream += [(*pair, 0.0, 3) for pair in heavy]
    fresh.feed(stream, batch=1)
    plain.feed(stream)
    assert errors(fresh, plain.weights()).max() < 1e-6


def turned(z, against, sine):
    """Each vector turned by that sine, away from the direction `against`."""
    along = (z * against).sum(1, keepdims=True) / (z * z).sum(1, keepdims=True) * z
    across = against - along
    across *= np.linalg.norm(z, axis=1, keepdims=True) / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    return (np.sqrt(1.0 - sine**2) * z - sine * across).astype(np.float32)


def cosines(a, b):
    """The cosine of each pair of rows."""
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


@pytest.mark.parametrize("epsilon", [0.0, 0.02])
def test_a_node_that_turned_since_it_was_published_is_dirty(epsilon):
    """What had already turned when it was looked at, but was not published again, counts towards the next turn."""
    nodes = 200
    fresh, twin = (Fresh(epsilon=epsilon, nodes=nodes, dim=16) for _ in range(2))
    everybody = np.arange(nodes, dtype=np.int32)
    before = busy_stream(4000, users=80, nodes=nodes, remove=0.0)
    after = [(user, 80 + user, 3.0, 9000) for user in range(8)]
    for one in (fresh, twin):
        one.feed(before)
    fresh.propagation.take_dirty()
    present = fresh.embeddings()
    twin.feed(after)
    published = turned(present, twin.embeddings() - present, 0.9 * np.sqrt(1.0 - 0.999**2))
    assert (cosines(present, published) > 0.999).all()
    fresh.propagation.settle(everybody, present, published)

    fresh.feed(after)

    by_this_alone = cosines(fresh.embeddings(), present) < 0.999
    in_all = cosines(fresh.embeddings(), published) < 0.999 - 1e-6
    assert (in_all & ~by_this_alone).sum() > 10
    assert set(np.flatnonzero(in_all)) <= set(fresh.propagation.take_dirty().tolist())


def test_movement_is_measured_against_the_length_of_what_was_published():
    """A node whose embedding has become short since its last edge turns by a small movement already."""
    fresh = Fresh(nodes=100, dim=16, alphas=(0.0, 0.0, 1.0))
    fresh.feed([(0, 1, 1.0, 0), (0, 1, 1.0, 1)], batch=1)
    fresh.feed([(0, item, 1.0, 1) for item in range(2, 60)])
    published = fresh.embeddings()
    fresh.propagation.take_dirty()
    fresh.propagation.settle(np.arange(100, dtype=np.int32), published, published)
    fresh.feed([(0, 60, 1.0, 2)])
    assert cosines(fresh.embeddings()[[1]], published[[1]]) < 0.999
    assert 1 in fresh.propagation.take_dirty()


@settings(max_examples=30, deadline=None)
@given(steps, steps, st.sampled_from([0.0, 0.1]))
def test_a_node_that_turned_is_dirty(before, after, epsilon):
    """Whoever's embedding turned further than the cosine asked for since it was published is named by `take_dirty`."""
    fresh = Fresh(epsilon=epsilon)
    fresh.feed(before)
    fresh.propagation.take_dirty()
    published = fresh.embeddings()
    fresh.propagation.settle(np.arange(NODES, dtype=np.int32), published, published)
    fresh.feed(after)
    in_all = cosines(fresh.embeddings(), published) < 0.999 - 1e-6
    assert set(np.flatnonzero(in_all)) <= set(fresh.propagation.take_dirty().tolist())


@pytest.mark.slow
def test_errors_do_not_add_up_over_a_long_stream():
    """After 300,000 insertions and removals in a small graph errors are of the size of epsilon, as at the beginning."""
    epsilon, nodes = 0.05, 400
    fresh, plain = Fresh(epsilon=epsilon, nodes=nodes, dim=16), PlainGraph()
    stream = busy_stream(300_000, users=150, nodes=nodes, remove=0.4)
    for begin in range(0, len(stream), 2000):
        fresh.feed(stream[begin : begin + 2000], batch=256)
        fresh.propagation.repair(20)
    plain.feed(stream)
    relative = errors(fresh, plain.weights()) / np.linalg.norm(fresh.embeddings(), axis=1)
    assert relative.max() < epsilon
    assert np.sqrt((relative**2).mean()) < epsilon / 2


@pytest.mark.parametrize("alphas", [(1.0,), (1.0, 0.0), (0.5, -0.1, 0.6), (0.1,) * 9])
def test_layer_weights_that_cannot_work_are_refused(alphas):
    """Too few, too many or negative layer weights, or a last one of zero, are told in words."""
    with pytest.raises(InvalidLayerWeights, match="layer weights"):
        Fresh(alphas=alphas)
