"""The kept embeddings against LGConv over the same graph."""

from __future__ import annotations

import numpy as np
import pytest
from graph_parts import DIM, NODES, USERS, Fresh, PlainGraph, reference, steps
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_updater.config import InvalidGraphConfig

layer_weights = st.sampled_from([(0.5, 0.5), (0.0, 0.3, 0.7), (0.25, 0.25, 0.25, 0.25), (1.0, 0.0, 0.5, 0.0, 2.0)])


@settings(max_examples=50, deadline=None)
@given(steps, st.integers(1, 20), layer_weights)
def test_without_epsilon_embeddings_are_lightgcns(stream, batch, alphas):
    """After any stream of inserts, removals and re-weights, in any batches, embeddings equal LGConv's to 1e-5."""
    fresh, plain = Fresh(alphas=alphas), PlainGraph()
    fresh.feed(stream, batch)
    plain.feed(stream)
    np.testing.assert_allclose(fresh.embeddings(), reference(plain.weights(), fresh.base, alphas), atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(steps, st.integers(1, 20), layer_weights, st.sampled_from([0.01, 0.1, 0.5]))
def test_with_epsilon_every_node_is_within_its_bound(stream, batch, alphas, epsilon):
    """The error of every single node is at most what `error_bounds` says of it."""
    fresh, plain = Fresh(epsilon=epsilon, alphas=alphas), PlainGraph()
    fresh.feed(stream, batch)
    plain.feed(stream)
    error = np.linalg.norm(fresh.embeddings() - reference(plain.weights(), fresh.base, alphas), axis=1)
    assert (error <= fresh.propagation.error_bounds() + 1e-5).all()


@settings(max_examples=25, deadline=None)
@given(steps, st.integers(300, 600), st.sampled_from([0.0, 0.1]))
def test_expired_edges_leave_the_embeddings_too(stream, now_ms, epsilon):
    """With a sliding window embeddings stay those of the edges that are left, exactly or within the bound."""
    fresh, plain = Fresh(epsilon=epsilon, window_ms=256), PlainGraph()
    fresh.feed(stream)
    plain.feed(stream)
    fresh.expire(now_ms)
    alive = plain.weights(keep=lambda time: time > now_ms - 256)
    error = np.linalg.norm(fresh.embeddings() - reference(alive, fresh.base, fresh.alphas), axis=1)
    assert (error <= fresh.propagation.error_bounds() + 1e-5).all()


@settings(max_examples=25, deadline=None)
@given(steps, st.sampled_from([0.0, 0.1]))
def test_decayed_weights_give_the_embeddings_of_decayed_weights(stream, epsilon):
    """Embeddings equal LGConv's with every weight halved per half-life, also when the landmark moves in mid-stream."""
    half_life_ms = 10  # 40 of them in the stream: the landmark moves
    fresh, plain = Fresh(epsilon=epsilon, half_life_ms=half_life_ms), PlainGraph()
    fresh.feed(stream)
    plain.feed(stream)
    decayed = plain.weights(size=lambda weight, time: weight * 2.0 ** ((time - 400) / half_life_ms))
    error = np.linalg.norm(fresh.embeddings() - reference(decayed, fresh.base, fresh.alphas), axis=1)
    assert (error <= fresh.propagation.error_bounds() + 1e-4).all()


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
    fresh, plain = Fresh(epsilon=0.3), PlainGraph()
    fresh.feed(before)
    plain.feed(before)
    fresh.propagation.recompute()
    np.testing.assert_allclose(fresh.embeddings(), reference(plain.weights(), fresh.base, fresh.alphas), atol=1e-5)
    fresh.feed(after)
    plain.feed(after)
    error = np.linalg.norm(fresh.embeddings() - reference(plain.weights(), fresh.base, fresh.alphas), axis=1)
    assert (error <= fresh.propagation.error_bounds() + 1e-5).all()


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


@settings(max_examples=30, deadline=None)
@given(steps, steps, st.sampled_from([0.0, 0.1]))
def test_a_node_that_turned_is_dirty(before, after, epsilon):
    """Whoever's embedding turned further than the cosine asked for since it was settled is named by `take_dirty`."""
    fresh = Fresh(epsilon=epsilon)
    fresh.feed(before)
    everybody = np.arange(NODES, dtype=np.int32)
    fresh.propagation.take_dirty()
    settled = fresh.embeddings()
    fresh.propagation.settle(everybody, settled, settled)
    fresh.feed(after)
    now = fresh.embeddings()
    cosine = (now * settled).sum(1) / (np.linalg.norm(now, axis=1) * np.linalg.norm(settled, axis=1))
    assert set(np.flatnonzero(cosine < 0.999 - 1e-6)) <= set(fresh.propagation.take_dirty().tolist())


@pytest.mark.slow
def test_errors_do_not_add_up_over_a_long_stream():
    """After 300,000 insertions and removals in a small graph every node is still within its bound."""
    random = np.random.default_rng(11)
    nodes = 400
    fresh, plain = Fresh(epsilon=0.05, nodes=nodes, dim=16), PlainGraph()
    for begin in range(0, 300_000, 2000):
        pairs = zip(random.integers(0, 150, 2000).tolist(), random.integers(150, nodes, 2000).tolist(), strict=True)
        sizes = random.choice([0.0, 1.0, 2.0], 2000, p=[0.5, 0.3, 0.2]).tolist()
        stream = [(*pair, size, begin + at) for at, (pair, size) in enumerate(zip(pairs, sizes, strict=True))]
        fresh.feed(stream, batch=256)
        fresh.propagation.repair(20)
        plain.feed(stream)
    error = np.linalg.norm(fresh.embeddings() - reference(plain.weights(), fresh.base, fresh.alphas), axis=1)
    assert (error <= fresh.propagation.error_bounds() + 1e-5).all()


@pytest.mark.parametrize("alphas", [(1.0,), (1.0, 0.0), (0.5, -0.1, 0.6), (0.1,) * 9])
def test_layer_weights_that_cannot_work_are_refused(alphas):
    """Too few, too many or negative layer weights, or a last one of zero, are told in words."""
    with pytest.raises(InvalidGraphConfig, match="layer weights"):
        Fresh(alphas=alphas)
