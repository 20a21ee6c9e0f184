"""A rebuilt state takes over what the compacted topics hold."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from interactions import exact_state, feed, interaction, streams, trained_base

PUBLISHED_MS = 1


def published(state):
    """The states that the topics hold once everything has been published."""
    state.published.take_changes()
    users = [state.published.user_state(name, PUBLISHED_MS) for name in state._nodes.ids.users]
    items = [state.published.item_state(name, PUBLISHED_MS) for name in state._nodes.ids.items]
    return users, items


def adopt(state, users, items):
    """Takes published states over."""
    adoption = state.adoption()
    adoption.take_users(users)
    adoption.take_items(items)
    adoption.finish()


def seen(state):
    """Histories and counts of everybody."""
    users = {name: state.published.user_state(name, 0) for name in state._nodes.ids.users}
    items = {name: state.published.item_state(name, 0) for name in state._nodes.ids.items}
    return (
        {
            name: (one.recent, one.impressions, one.positives, one.grades, one.last_event_time_ms)
            for name, one in users.items()
        },
        {name: (one.impressions, one.positives, one.grades, one.last_event_time_ms) for name, one in items.items()},
    )


@settings(max_examples=60, deadline=None)
@given(streams)
def test_rebuilt_from_all_records_nothing_is_left_to_be_published(stream):
    """The topics hold exactly this state: embeddings, histories, counts and versions stay as they are."""
    leader, rebuilt = exact_state(), exact_state()
    feed(leader, stream)
    users, items = published(leader)
    feed(rebuilt, stream)

    adopt(rebuilt, users, items)

    assert seen(rebuilt) == seen(leader)
    changes = rebuilt.published.take_changes()
    assert (changes.users, changes.items) == ([], [])
    versions = {one.user_id: one.embedding.version for one in users if one.embedding}
    for name, version in versions.items():
        assert rebuilt.published.user_state(name, 0).embedding.version == version


@settings(max_examples=60, deadline=None)
@given(streams, st.integers(0, 40))
def test_rebuilt_from_the_last_records_nothing_is_poorer_than_published(stream, kept):
    """Counts and histories are the published ones, whatever part of the records is left; whoever turned is named."""
    stream = [one for one in stream if one.kind != "removal"]
    leader, rebuilt = exact_state(), exact_state()
    feed(leader, stream)
    users, items = published(leader)
    feed(rebuilt, stream[len(stream) - min(kept, len(stream)) :])

    adopt(rebuilt, users, items)

    assert seen(rebuilt) == seen(leader)


def test_clicks_that_only_the_published_history_knows_make_edges():
    """Embeddings come back with the history, except for weights that it does not tell."""
    stream = [interaction("anna", "item-0", 1), interaction("anna", "item-1", 2), interaction("bert", "item-1", 3)]
    leader, rebuilt = exact_state(), exact_state()
    feed(leader, stream)
    feed(rebuilt, stream[2:])

    adopt(rebuilt, *published(leader))

    np.testing.assert_allclose(
        rebuilt.user_embeddings(["anna", "bert"]), leader.user_embeddings(["anna", "bert"]), atol=1e-6
    )


def test_weights_that_are_still_retained_are_not_replaced():
    """An interaction that was replayed keeps its own weight."""
    stream = [interaction("anna", "item-0", 1, weight=0.25), interaction("anna", "item-1", 2)]
    leader, rebuilt = exact_state(), exact_state()
    for state in (leader, rebuilt):
        feed(state, stream)

    adopt(rebuilt, *published(leader))

    np.testing.assert_allclose(rebuilt.user_embeddings(["anna"]), leader.user_embeddings(["anna"]), atol=1e-6)


def test_what_the_topics_lack_is_published():
    """States made again under an empty topic are all named, with versions that go on."""
    state = exact_state()
    feed(state, [interaction("anna", "item-0", 1)])
    users, _ = published(state)

    adopt(state, [], [])

    changes = state.published.take_changes()
    assert changes.users == ["anna"]
    assert "item-0" in changes.items
    assert state.published.user_state("anna", 0).embedding.version > users[0].embedding.version


def test_a_replayed_interaction_after_the_published_ones_is_named():
    """A user with more interactions than the topic tells is published again."""
    leader, rebuilt = exact_state(), exact_state()
    feed(leader, [interaction("anna", "item-0", 1)])
    users, items = published(leader)
    feed(rebuilt, [interaction("anna", "item-0", 1), interaction("anna", "item-0", 2, "view")])

    adopt(rebuilt, users, items)

    assert rebuilt.published.take_changes().users == ["anna"]
    assert rebuilt.published.user_state("anna", 0).impressions == 2


@settings(max_examples=60, deadline=None)
@given(streams)
def test_what_another_bundle_published_is_published_again(stream):
    """Embeddings of another space count as not published, whatever else agrees; versions go on from theirs."""
    leader, rebuilt = exact_state(trained_base(space="one")), exact_state(trained_base(space="two"))
    feed(leader, stream)
    users, items = published(leader)
    feed(rebuilt, stream)

    adopt(rebuilt, users, items)

    changes = rebuilt.published.take_changes()
    embedded = [one.user_id for one in users if one.embedding], [one.item_id for one in items if one.embedding]
    assert set(changes.users) >= set(embedded[0])
    assert set(changes.items) >= set(embedded[1])
    for one in users:
        if one.embedding is not None:
            now = rebuilt.published.user_state(one.user_id, 0).embedding
            assert (now.space, now.version) == ("two", one.embedding.version + 1)
