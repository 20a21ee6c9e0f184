"""The store of parts against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_updater.graph.parts import COUNTS, Parts, PartStore

LAYERS, DIM, NODES, SHARDS = 2, 3, 12, 3
puts = st.lists(
    st.tuples(st.integers(0, SHARDS - 1), st.lists(st.integers(0, NODES - 1), unique=True), st.integers(0, 3)),
    max_size=20,
)
"""Shard, nodes, and a number of edges; 0 takes the parts away."""


def parts_of(edges, number, count):
    """Parts that differ by number."""
    return Parts(
        degree=np.full(count, 1.5 * number),
        edges=np.full(count, edges),
        landmark_ms=np.full(count, 10 * number),
        sums=np.full((count, LAYERS, DIM), number, np.float32),
        counts=np.full((count, COUNTS), number if edges else 0),
    )


@settings(max_examples=50, deadline=None)
@given(puts)
def test_of_each_shard_and_node_the_last_part_is_kept(steps):
    """Whatever is replaced or taken away, and whichever rows are used again; items may be named after parts came."""
    store, plain = PartStore(SHARDS, LAYERS, DIM, 0), {}
    for number, (shard, nodes, edges) in enumerate(steps, start=1):
        store.add_items(np.array(nodes, np.int32))
        store.put(shard, np.array(nodes, np.int32), parts_of(edges, number, len(nodes)))
        plain.update({(shard, node): (edges, number) for node in nodes})
    store.add_items(np.arange(NODES, dtype=np.int32))
    for shard in range(SHARDS):
        told = store.told(shard, np.arange(NODES, dtype=np.int32), 0)
        known = [plain.get((shard, node), (0, 0)) for node in range(NODES)]
        number = np.array([number if edges else 0 for edges, number in known])
        np.testing.assert_array_equal(told.edges, [edges for edges, _ in known])
        np.testing.assert_array_equal(told.degree, 1.5 * number)
        np.testing.assert_array_equal(told.sums, np.broadcast_to(number[:, None, None], (NODES, LAYERS, DIM)))


def test_rows_of_parts_taken_away_are_used_again():
    """Parts that come and go take no more memory than those that are there at once."""
    store, nodes = PartStore(2, LAYERS, DIM, 0), np.arange(1_000, dtype=np.int32)
    store.add_items(nodes)
    store.put(0, nodes, parts_of(1, 1, nodes.size))
    size = store.nbytes()
    for number in range(5):
        store.put(0, nodes, parts_of(1, number, nodes.size))
    for number in range(5):
        store.put(number % 2, nodes, parts_of(0, 1, nodes.size))
        store.put(1 - number % 2, nodes, parts_of(1, 1, nodes.size))
        store.put(1 - number % 2, nodes, parts_of(0, 1, nodes.size))
    assert store.nbytes() == size


def test_with_decay_a_part_is_scaled_to_the_landmark_asked_for():
    """A landmark one half-life later halves the degree, and takes the root of it off the sums."""
    store, nodes = PartStore(1, LAYERS, DIM, 100), np.array([3], np.int32)
    store.add_items(nodes)
    store.put(0, nodes, parts_of(2, 10, 1))  # its landmark is 100
    told = store.told(0, nodes, 200)
    assert (told.degree[0], told.landmark_ms[0], told.edges[0]) == (7.5, 200, 2)
    np.testing.assert_allclose(told.sums, 10 / np.sqrt(2), rtol=1e-6)
