"""Snapshots: copied while the stream goes on, restored to the same state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interactions import TRAINED, exact_state, feed, interaction, pass_time, streams, trained_base

from graph_updater.graph.config import GraphConfig
from graph_updater.state.snapshot_checks import IncompatibleSnapshot
from graph_updater.state.updater_state import UpdaterState
from schemas.messages import Item

CONFIG = GraphConfig(epsilon=0.0, embedding_dtype="float32", window_ms=256_000, half_life_ms=1000)
ITEMS = [*TRAINED, "new-1", "new-2"]


def same(one, other):
    """Whether two states show the same of everybody; looks without taking changes."""
    users = sorted(one._nodes.ids.users)
    assert users == sorted(other._nodes.ids.users)
    assert sorted(one._nodes.ids.items) == sorted(other._nodes.ids.items)
    for user in users:
        assert one.published.user_state(user, 0) == other.published.user_state(user, 0)
    for item in one._nodes.ids.items:
        assert one.published.item_state(item, 0) == other.published.item_state(item, 0)
    np.testing.assert_allclose(one.user_embeddings(users), other.user_embeddings(users), atol=1e-5)
    np.testing.assert_allclose(one.item_embeddings(ITEMS), other.item_embeddings(ITEMS), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(streams, streams, streams, st.integers(1, 4))
def test_a_copy_made_in_mid_stream_is_the_state_of_its_last_moment(before, during, after, stride):
    """Copied a few nodes at a time between batches, restored, then continued: equal to the state that never stopped."""
    state = UpdaterState(CONFIG, trained_base())
    feed(state, before)
    state.published.take_changes()
    copy = state.start_snapshot()
    for begin in range(0, len(during), 4):
        copy.step(stride)
        state.apply(during[begin : begin + 4])
        state.release_idle()
        if begin % 8 == 0:
            state.published.take_changes()
    restored = UpdaterState.restore(CONFIG, trained_base(), *state.finish_snapshot().merge())
    same(state, restored)
    feed(state, after)
    feed(restored, after)
    same(state, restored)


def test_in_another_space_every_state_is_published_also_one_without_an_embedding():
    """What the topics hold of an id that has none in the new space would stay there for ever otherwise."""
    former = replace(trained_base(), text_map=lambda _title, _attributes: trained_base().item_vectors[0])
    state = UpdaterState(CONFIG, former)
    state.apply_items([Item(item_id="new-1", title="a title")])
    feed(state, [interaction("anna", "item-0", 1), interaction("bert", "item-1", 2)])
    state.published.take_changes()
    assert state.published.item_state("new-1", 0).embedding is not None

    base = replace(trained_base(), item_vectors=2.0 * trained_base().item_vectors[:, ::-1])
    restored = UpdaterState.restore(CONFIG, base, *state.snapshot_arrays(), of_other_space=True)

    changes = restored.published.take_changes()
    assert sorted(changes.users) == ["anna", "bert"]
    assert sorted(changes.items) == sorted({*TRAINED, "new-1"})
    assert restored.published.item_state("new-1", 0).embedding is None
    fresh = UpdaterState(CONFIG, base)
    feed(fresh, [interaction("anna", "item-0", 1), interaction("bert", "item-1", 2)])
    np.testing.assert_allclose(restored.item_embeddings(TRAINED), fresh.item_embeddings(TRAINED), atol=1e-5)


def test_a_landmark_that_moves_during_the_copy_moves_for_what_is_copied_already():
    """Weights copied before the move and after it are of one scale."""
    config = GraphConfig(epsilon=0.0, embedding_dtype="float32", half_life_ms=10)
    state = UpdaterState(config, trained_base())
    before = [interaction("anna", "item-0", 0), interaction("anna", "item-1", 5), interaction("bert", "item-0", 300)]
    feed(state, before, batch=1)
    pass_time(state, 300)
    while not state.start_snapshot().step():
        pass
    landmark_ms = state._nodes.graph.landmark_ms
    feed(state, [interaction("bert", "item-2", 400)])
    pass_time(state, 700)
    assert state._nodes.graph.landmark_ms > landmark_ms
    restored = UpdaterState.restore(config, trained_base(), *state.finish_snapshot().merge())
    same(state, restored)


@settings(max_examples=20, deadline=None)
@given(streams)
def test_what_was_to_be_published_still_is(stream):
    """Users and items that changed after the last publication are named by the restored state as well."""
    state = exact_state()
    feed(state, stream[: len(stream) // 2])
    state.published.take_changes()
    feed(state, stream[len(stream) // 2 :])
    restored = UpdaterState.restore(state._config, trained_base(), *state.snapshot_arrays())
    ours, theirs = state.published.take_changes(), restored.published.take_changes()
    assert sorted(ours.users) == sorted(theirs.users)
    assert sorted(ours.items) == sorted(theirs.items)


def test_tombstones_still_to_be_published_survive():
    """Who expired before the snapshot and was not yet published as gone is named after the restart."""
    state = UpdaterState(CONFIG, trained_base())
    state.apply([interaction("anna", "item-0", 1_000)])
    pass_time(state, 900_000)
    restored = UpdaterState.restore(CONFIG, trained_base(), *state.snapshot_arrays())
    assert restored.published.take_changes().expired_users == ["anna"]


def test_what_was_too_old_before_the_snapshot_is_too_old_after_it():
    """The front of the window comes back with the state: a late interaction from behind it makes no edge."""
    state = exact_state(window_ms=256_000)
    state.apply([interaction("bert", "item-1", 900_000)])
    pass_time(state, 900_000)
    restored = UpdaterState.restore(state._config, trained_base(), *state.snapshot_arrays())
    for one in (state, restored):
        one.apply([interaction("anna", "item-0", 1_000), interaction("carl", "item-0", 899_999)])
        assert not one.user_embeddings(["anna"]).any()
        assert one.user_embeddings(["carl"]).any()


def test_an_empty_state_can_be_saved_and_restored():
    """A state without a single interaction or item survives the journey."""
    state = UpdaterState(CONFIG, trained_base())
    restored = UpdaterState.restore(CONFIG, trained_base(), *state.snapshot_arrays())
    same(state, restored)


def test_a_snapshot_from_before_grades_has_those_that_its_outcomes_imply():
    """A click counts as the best, anything else as the worst, in histories and in sums."""
    stream = [interaction("anna", item, 10 + at, kind) for at, item in enumerate(ITEMS) for kind in ("view", "click")]
    state = exact_state()
    state.apply(stream)
    arrays, metadata = state.snapshot_arrays()
    earlier = {name: array for name, array in arrays.items() if name not in ("grades", "history_grade")}
    restored = UpdaterState.restore(state._config, trained_base(), earlier, {**metadata, "version": 1})
    same(state, restored)
    assert restored.published.user_state("anna", 0).grades == 255 * len(ITEMS)


def test_a_snapshot_of_another_kind_is_refused_in_words():
    """Another version, another model's size, or missing arrays: one line that says which."""
    arrays, metadata = exact_state().snapshot_arrays()
    base = trained_base()
    with pytest.raises(IncompatibleSnapshot, match="version 99"):
        UpdaterState.restore(CONFIG, base, arrays, {**metadata, "version": 99})
    with pytest.raises(IncompatibleSnapshot, match="embeddings of 3 numbers"):
        UpdaterState.restore(CONFIG, base, arrays, {**metadata, "dim": 3})
    with pytest.raises(IncompatibleSnapshot, match="lacks names"):
        UpdaterState.restore(CONFIG, base, {n: a for n, a in arrays.items() if n != "names"}, metadata)
