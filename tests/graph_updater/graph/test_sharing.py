"""Shards that exchange parts against LGConv over the graph of all of them."""

from __future__ import annotations

import numpy as np
import pytest
from graph_parts import NODES, USERS, Fresh, PlainGraph, steps
from graph_shards import PARTITIONS, Shards, epsilon_bounds_of_shards
from hypothesis import given, settings
from hypothesis import strategies as st

layer_weights = st.sampled_from([(0.5, 0.5), (0.0, 0.3, 0.7), (0.25, 0.25, 0.25, 0.25)])
events = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["publish", "publish own edges"]), st.integers(0, 3)),
        st.tuples(st.just("deliver"), st.integers(0, 3), st.integers(0, PARTITIONS - 1), st.integers(1, 6)),
        st.tuples(st.just("rewind"), st.integers(0, 3), st.integers(0, PARTITIONS - 1), st.integers(0, 10)),
        st.tuples(st.just("compact"), st.integers(0, PARTITIONS - 1)),
        st.tuples(st.just("feed"), st.integers(1, 12)),
    ),
    max_size=40,
)
"""What happens between shards: in any order, at any pace, twice, and with all but the last record of a key lost."""


def play(shards, stream, happenings):
    """Feeds the stream while records are written, read late, read twice and compacted; then all comes to rest."""
    at = 0
    for kind, *numbers in happenings:
        if kind == "feed":
            shards.feed(stream[at : at + numbers[0]])
            at += numbers[0]
        elif kind == "compact":
            shards.compact(*numbers)
        elif kind == "publish own edges":
            shards.publish(numbers[0] % shards.count, of_own_edges=True)
        elif numbers[0] < shards.count:
            getattr(shards, kind)(*numbers)
    shards.feed(stream[at:])
    shards.settle()


@settings(max_examples=60, deadline=None)
@given(steps, events, layer_weights, st.sampled_from([1, 2, 4]), st.sampled_from([0.01, 0.1]))
def test_every_node_of_every_shard_is_within_the_bound(stream, happenings, alphas, count, epsilon):
    """However parts are delayed, repeated or compacted, embeddings end within the bound from the shards' limits, and
    within what epsilon allows by definition.
    """
    shards, plain = Shards(count, epsilon=epsilon, alphas=alphas), PlainGraph()
    play(shards, stream, happenings)
    plain.feed(stream)
    shards.check_at_rest()
    error, bound = shards.errors(plain.weights()), shards.error_bounds()
    assert (error <= bound + 1e-5).all()
    # Limits are of the moment at which a node was last looked at: a little beside those of the end.
    allowed = epsilon_bounds_of_shards(plain.weights(), shards.base, alphas, epsilon, count)
    assert (error <= 1.5 * allowed + 1e-5).all()


@settings(max_examples=40, deadline=None)
@given(steps, events, layer_weights, st.sampled_from([2, 4]))
def test_without_epsilon_shards_have_lightgcns_embeddings(stream, happenings, alphas, count):
    """After any stream and any delivery all shards have LGConv's embeddings of all items, and of their users."""
    shards, plain = Shards(count, alphas=alphas), PlainGraph()
    play(shards, stream, happenings)
    plain.feed(stream)
    np.testing.assert_allclose(shards.errors(plain.weights()), 0.0, atol=3e-5)


@settings(max_examples=30, deadline=None)
@given(steps, st.integers(1, 20), st.sampled_from([0.0, 0.1]), st.sampled_from([{}, {"half_life_ms": 8}]))
def test_one_shard_is_bit_for_bit_what_the_graph_is_without_shards(stream, batch, epsilon, config):
    """Sums, what was pushed, bounds and embeddings of a single shard are those of a graph that knows of no shards."""
    stream = sorted(stream, key=lambda step: step[3])
    alone, shards = Fresh(epsilon=epsilon, **config), Shards(1, epsilon=epsilon, **config)
    alone.feed(stream, batch)
    shards.feed(stream, batch)
    (shard,), layers = shards.shards, alone.propagation.layers
    np.testing.assert_array_equal(shard.embeddings(), alone.embeddings())
    ours, theirs = shard.propagation.tables, alone.propagation.tables
    np.testing.assert_array_equal(ours.sums[:NODES], theirs.sums[:NODES])
    np.testing.assert_array_equal(ours.pushed[:NODES, :layers], theirs.pushed[:NODES])
    np.testing.assert_array_equal(ours.head[:NODES, : theirs.head.shape[1]], theirs.head[:NODES])
    np.testing.assert_array_equal(shard.propagation.take_dirty(), alone.propagation.take_dirty())


def test_parts_that_only_embeddings_have_moved_may_wait():
    """What may not wait is told with exact degrees; the rest stays owed and is told when all is asked for."""
    shards = Shards(2, epsilon=0.05)
    shards.feed([(user, USERS + item, 1.0, 1) for user in range(USERS) for item in range(4)])
    shards.settle()
    shards.feed([(0, USERS + 6, 3.0, 2)])
    assert shards.publish(0, of_own_edges=True) == 1
    assert shards.publish(0, of_own_edges=True) == 0
    assert shards.publish(0) > 1
    shards.settle()
    shards.check_at_rest()


HALF_LIFE_MS = 8


@settings(max_examples=40, deadline=None)
@given(steps, events, st.sampled_from([2, 4]), st.sampled_from([0.0, 0.1]))
def test_shards_with_landmarks_of_their_own_agree_on_decayed_weights(stream, happenings, count, epsilon):
    """With decay every shard moves its landmark as its own events come; parts are scaled to the reader's."""
    stream = sorted(stream, key=lambda step: step[3])
    stream += [(user, USERS, 1.0, 401 + user) for user in range(count)]
    shards, plain = Shards(count, epsilon=epsilon, half_life_ms=HALF_LIFE_MS), PlainGraph()
    play(shards, stream, happenings)
    plain.feed(stream)
    edges = plain.weights(size=lambda weight, time: weight * 2.0 ** ((time - 401) / HALF_LIFE_MS))
    assert (shards.errors(edges) <= shards.error_bounds() + 1e-4).all()


@pytest.mark.parametrize("half_lives", [10, 50])
def test_a_shard_whose_first_edge_comes_late_has_the_others_parts_in_its_own_scale(half_lives):
    """A shard that has only read parts so far moves its landmark to its first edge, and what it has read with it."""
    shards, plain = Shards(2, alphas=(0.5, 0.5), half_life_ms=HALF_LIFE_MS), PlainGraph()
    late_ms = half_lives * HALF_LIFE_MS
    for stream in ([(0, USERS, 1.0, 0), (0, USERS + 1, 2.0, 3)], [(1, USERS, 1.0, late_ms)]):
        shards.feed(stream)
        shards.settle()
        plain.feed(stream)
    edges = plain.weights(size=lambda weight, time: weight * 2.0 ** ((time - late_ms) / HALF_LIFE_MS))
    np.testing.assert_allclose(shards.errors(edges), 0.0, atol=3e-5)


def test_a_part_is_told_again_once_the_whole_has_shrunk_around_it():
    """What was too little beside other shards' parts to be told is told when these have gone."""
    shards = Shards(2, epsilon=0.4, alphas=(0.5, 0.5))
    heavy = [(user, USERS, 20.0, 1) for user in (1, 3, 5)]
    shards.feed([*heavy, (0, USERS, 1.0, 1)])
    shards.settle()
    shards.feed([(0, USERS + 2, 9.0, 2)])  # the user's share in the first item falls, which is little in all
    shards.settle()
    shards.feed([(user, item, 0.0, 3) for user, item, _, _ in heavy])
    shards.settle()
    shards.check_at_rest()


@pytest.mark.parametrize("light", [(0, USERS + 1), (2, USERS)])
def test_an_edge_too_light_to_move_anything_is_told_all_the_same(light):
    """Beside a hundred times heavier edges of its user or item: degrees and numbers of edges are always exact."""
    shards = Shards(2, epsilon=0.2, alphas=(0.5, 0.5))
    shards.feed([(0, USERS, 300.0, 1)])
    shards.settle()
    shards.feed([(*light, 1.0, 2)])
    shards.settle()
    shards.check_at_rest()


@settings(max_examples=25, deadline=None)
@given(steps, steps, st.sampled_from([2, 4]))
def test_a_shard_that_recomputes_from_the_parts_it_has_goes_on_from_there(before, after, count):
    """As after a restart: sums made anew from the shard's edges and the others' parts, then the stream goes on."""
    shards, plain = Shards(count, epsilon=0.1), PlainGraph()
    shards.feed(before)
    for number in range(count):
        shards.publish(number)
    for number, shard in enumerate(shards.shards):
        shards.deliver(number, 0)
        shard.propagation.recompute()
    shards.feed(after)
    shards.settle()
    plain.feed([*before, *after])
    assert (shards.errors(plain.weights()) <= shards.error_bounds() + 1e-5).all()


def test_a_part_travels_once_per_layer_and_then_rests():
    """Without delays a change comes to rest within as many rounds as there are layers, and repeated reading, with no
    event in between, tells nothing again.
    """
    shards = Shards(2, epsilon=0.05)
    shards.feed([(user, USERS + item, 1.0, 1) for user in range(USERS) for item in range(NODES - USERS)][::2])
    assert shards.settle() <= len(shards.alphas)
    told = shards.told
    for number in range(2):
        for partition in range(PARTITIONS):
            shards.rewind(number, partition, 0)
    assert shards.settle() == 0
    assert shards.told == told


def busy_stream(count, users, nodes):
    """Insertions and removals, items met by Zipf's law."""
    random = np.random.default_rng(11)
    popularity = 1.0 / np.arange(1, nodes - users + 1)
    columns = (
        random.integers(0, users, count),
        random.choice(np.arange(users, nodes), count, p=popularity / popularity.sum()),
        random.choice([0.0, 1.0, 2.0], count, p=[0.2, 0.5, 0.3]),
    )
    return [(*step, time) for time, step in enumerate(zip(*(column.tolist() for column in columns), strict=True))]


@pytest.mark.parametrize("count", [2, 4])
def test_errors_of_shards_are_of_the_size_of_epsilon(count):
    """With a few hubs, parts told after every batch: below epsilon at every node, well below it typically."""
    epsilon, users, nodes = 0.1, 150, 300
    shards = Shards(count, epsilon=epsilon, users=users, nodes=nodes, dim=16)
    plain, stream = PlainGraph(), busy_stream(4000, users, nodes)
    for begin in range(0, len(stream), 64):
        shards.feed(stream[begin : begin + 64], batch=64)
        for number in range(count):
            shards.publish(number)
            for partition in range(PARTITIONS):
                shards.deliver(number, partition)
    shards.settle()
    plain.feed(stream)
    size = np.linalg.norm(np.stack([shard.embeddings() for shard in shards.shards]), axis=2).max(axis=0)
    relative = shards.errors(plain.weights()) / np.maximum(size, 1e-9)
    assert relative.max() < epsilon
    assert np.sqrt((relative**2).mean()) < epsilon / 2
