"""The benchmark of shards, on a small graph."""

from __future__ import annotations

from benchmarks.graph_workloads import power_law_edges
from benchmarks.shards import EPSILON, SHARDS, figures


def test_figures_of_shards_on_a_small_graph():
    """One shard tells nothing; more tell parts and stay within epsilon of one graph's embeddings."""
    found = figures(power_law_edges(200, 100, 3_000), events_per_round=200, rounds=4)
    assert found["shards"] == list(SHARDS)
    assert found["parts_per_event"][0] == 0
    assert min(found["parts_per_event"][1:]) > 0
    assert all(0 < error < EPSILON for error in found["max_relative_error"])
    assert all(len(found[name]) == len(SHARDS) for name in ("events_per_second", "exchange_share", "told_share"))
