"""The demo's report in the terminal."""

import pytest

from cli.report import heads_words

TRAINED = {"auc_layer_1": 0.7, "auc_layer_12": 0.74, "auc_layer_4": 0.72, "auc_full_depth": 0.75}


def test_heads_are_told_in_the_order_of_their_depth():
    """Layer 12 comes after layer 4, whatever the order of their names."""
    told = heads_words(TRAINED)
    assert "layer 1 0.7000, layer 4 0.7200, layer 12 0.7400, full depth 0.7500" in told
    assert "limit" not in told


@pytest.mark.parametrize(("means", "limit", "way"), [(0.6, 0.85, "60%"), (0.7, 0.8, "50%")])
def test_of_an_invented_world_the_way_to_the_limit_is_told(means, limit, way):
    """It begins at the running means, and the limit is its end."""
    told = heads_words(TRAINED | {"auc_running_means": means, "auc_limit": limit})
    assert f"limit of this invented world {limit:.4f}, {way} of the way" in told


def test_a_limit_no_better_than_the_running_means_has_no_way_to_it():
    """On a handful of events it may come out so."""
    assert "limit" not in heads_words(TRAINED | {"auc_running_means": 0.9, "auc_limit": 0.9})
