"""Ids to numbers and back."""

from __future__ import annotations

import numpy as np

from graph_updater.state.identities import ITEM, NOBODY, USER, Identities


def test_a_user_and_an_item_of_the_same_id_are_two_nodes():
    """The two kinds share the numbers but not the names."""
    ids = Identities()
    assert ids.user_nodes(["ü", "7", "ü"]) == ([0, 1, 0], [0, 1])
    assert ids.item_nodes(["7"]) == ([2], [2])
    assert ids.names == ["ü", "7", "7"]


def test_released_numbers_are_used_again():
    """A number that was given up goes to the next newcomer, of either kind."""
    ids = Identities()
    ids.user_nodes(["a", "b"])
    assert ids.release(ids.users, 0) == "a"
    assert ids.item_nodes(["c"]) == ([0], [0])
    assert ids.names == ["c", "b"]


def test_restored_identities_know_names_and_free_numbers():
    """What was written as names and kinds is found again, and holes are filled first."""
    ids = Identities()
    ids.restore(["a", "", "b"], np.array([USER, NOBODY, ITEM], np.uint8))
    assert (ids.users, ids.items) == ({"a": 0}, {"b": 2})
    assert ids.user_nodes(["new", "newer"])[0] == [1, 3]
