"""The graph against a dictionary of edges."""

from __future__ import annotations

import numpy as np
from graph_parts import ITEMS, NODES, USERS, Fresh, PlainGraph, edge_ops, steps
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_updater.graph.bipartite import BipartiteGraph
from graph_updater.graph.config import GraphConfig


def one_sided(graph):
    """Pair to weight and time, after checking that both ends tell the same."""
    edges = graph.edges()
    for (one, other), value in edges.items():
        assert edges[other, one] == value
    return {pair: value for pair, value in edges.items() if pair[0] < USERS}


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(1, 20))
def test_the_graph_holds_of_each_pair_the_latest_interaction(stream, batch):
    """Inserts, removals and re-weights, repeated and late, leave the edges that a plain dictionary has."""
    graph, plain = Fresh(), PlainGraph()
    graph.feed(stream, batch)
    plain.feed(stream)
    assert one_sided(graph) == {pair: (weight, time) for pair, (time, weight) in plain.edges.items()}
    lists = graph.graph.adjacency.lists
    assert lists.length[:NODES].sum() == 2 * len(plain.edges)
    assert graph.graph.edge_count == len(plain.edges)


@settings(max_examples=30, deadline=None)
@given(steps, st.randoms(use_true_random=False))
def test_insertions_may_come_in_any_order_and_twice(stream, random):
    """A shuffled stream of insertions with every element repeated ends in the same edges."""
    insertions = [step for step in stream if step[2] > 0.0]
    shuffled = insertions * 2
    random.shuffle(shuffled)
    straight, other = Fresh(), Fresh()
    straight.feed(insertions)
    other.feed(shuffled)
    assert straight.edges() == other.edges()


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(40)), st.integers(1, 4))
def test_a_full_node_keeps_its_newest_edges(order, cap):
    """A user who meets 40 items in any order of arrival keeps the `cap` latest; the other ends forget theirs too."""
    graph = BipartiteGraph(GraphConfig(degree_cap=cap))
    graph.add_nodes(41)
    changes = graph.apply(edge_ops([(0, 1 + number, 1.0, number) for number in order]))
    kept = graph.edges_of(np.array([0], np.int32))
    assert sorted(kept.time.tolist()) == list(range(40 - cap, 40))
    assert graph.adjacency.degree[0] == cap
    assert graph.edge_count == cap
    assert changes.weight.sum() == cap


@settings(max_examples=40, deadline=None)
@given(steps, st.integers(300, 900))
def test_edges_leave_with_their_slice_of_the_window(stream, now_ms):
    """After time has passed exactly the edges remain whose time is within the window; older ones cannot enter."""
    window_ms = 256  # slices of one millisecond
    graph, plain = Fresh(window_ms=window_ms), PlainGraph()
    graph.feed(stream)
    plain.feed(stream)
    graph.expire(now_ms)
    alive = {pair for pair, (time, _) in plain.edges.items() if time > now_ms - window_ms}
    assert one_sided(graph).keys() == alive
    graph.feed([(0, USERS, 1.0, now_ms - window_ms)])
    assert one_sided(graph).keys() - {(0, USERS)} == alive - {(0, USERS)}
    assert ((0, USERS) in one_sided(graph)) == ((0, USERS) in alive)


def test_weights_decay_by_half_per_half_life():
    """Of two edges one half-life apart the older has half the stored weight, also after the landmark has moved on."""
    graph = Fresh(half_life_ms=1000)
    graph.feed([(0, USERS, 1.0, 0), (0, USERS + 1, 1.0, 1000)])
    assert graph.edges()[0, USERS + 1][0] == 2 * graph.edges()[0, USERS][0]
    graph.feed([(0, USERS + 2, 1.0, 40_000)], batch=1)
    weights = graph.edges()
    assert graph.graph.landmark_ms > 0
    assert weights[0, USERS + 2][0] / weights[0, USERS + 1][0] == 2.0**39


def test_blocks_are_used_again_and_arrays_grow_in_steps():
    """Filling and emptying the graph over and over needs no more cells than filling it once."""
    everything = [(user, USERS + item, 1.0, 1) for user in range(USERS) for item in range(ITEMS)]
    graph = Fresh()
    graph.feed(everything)
    cells = graph.graph.adjacency.neighbour.shape[0]
    for time in range(2, 12):
        graph.feed([(user, item, 0.0, time) for user, item, _, _ in everything])
        assert graph.graph.edge_count == 0
        graph.feed([(user, item, 1.0, time) for user, item, _, _ in everything])
    assert graph.graph.edge_count == len(everything)
    assert graph.graph.adjacency.neighbour.shape[0] == cells


def test_many_edges_grow_the_arrays_in_mid_batch():
    """A batch far larger than the room left is carried out to its end."""
    random = np.random.default_rng(5)
    pairs = sorted({(int(a), 500 + int(b)) for a, b in random.integers(0, 500, size=(20_000, 2))})
    graph = BipartiteGraph(GraphConfig(degree_cap=0))
    graph.add_nodes(1000)
    changes = graph.apply(edge_ops([(user, item, 1.0, 7) for user, item in pairs]))
    assert graph.edge_count == len(pairs) == changes.user.size
    edges = graph.edges_of(np.arange(500, dtype=np.int32))
    assert set(zip(edges.node.tolist(), edges.neighbour.tolist(), strict=True)) == set(pairs)
