"""The state machine: interactions in, states out."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from graph_parts import reference
from hypothesis import example, given, settings
from hypothesis import strategies as st
from interactions import ALPHAS, SIZE, TRAINED, exact_state, feed, interaction, pass_time, streams, trained_base

from schemas.messages import Item


def everything(state):
    """All that can be seen of a state, by id."""
    changes = state.published.take_changes(force=True)
    users = {user: state.published.user_state(user, 0) for user in changes.users}
    items = {item: state.published.item_state(item, 0) for item in changes.items}
    return (
        {user: (one.recent, one.impressions, one.positives, one.last_event_time_ms) for user, one in users.items()},
        {item: (one.impressions, one.positives, one.last_event_time_ms) for item, one in items.items()},
        dict(zip([*users, *items], embeddings_of(state, users, items), strict=False)),
    )


def embeddings_of(state, users, items):
    """The embeddings of these users, then of these items."""
    return np.concatenate([state.user_embeddings(list(users)), state.item_embeddings(list(items))])


@settings(max_examples=40, deadline=None)
@given(streams, st.integers(1, 12))
def test_embeddings_are_lightgcns_over_what_stands_as_positive(stream, batch):
    """An edge is there exactly where the latest judgement of the pair is positive; embeddings follow from the edges."""
    state = exact_state()
    feed(state, stream, batch)
    users, items = sorted({one.user_id for one in stream}), sorted({*TRAINED, *(one.item_id for one in stream)})
    rank = {"click": 2, "purchase": 2, "dislike": 1, "removal": 3}
    edges = {}
    for user, item in sorted({(one.user_id, one.item_id) for one in stream}):
        judged = [one for one in stream if (one.user_id, one.item_id) == (user, item) and one.kind in rank]
        latest = max(judged, key=lambda one: (one.event_time_ms, rank[one.kind], one.weight), default=None)
        if latest is not None and rank[latest.kind] == 2:
            edges[users.index(user), len(users) + items.index(item)] = latest.weight
    base = np.zeros((len(users) + len(items), SIZE), np.float32)
    for item, vector in zip(TRAINED, trained_base().item_vectors, strict=True):
        base[len(users) + items.index(item)] = vector
    np.testing.assert_allclose(embeddings_of(state, users, items), reference(edges, base, ALPHAS), atol=1e-5)


TWO_IDS = [
    interaction("anna", "new-1", 0, "purchase"),
    interaction("anna", "x", 0, "click"),
    interaction("anna", "new-1", 0, "click"),
]


@settings(max_examples=30, deadline=None)
@given(streams, st.randoms(use_true_random=False))
@example(TWO_IDS, Random(0))
@example(TWO_IDS, Random(1))
@example(TWO_IDS, Random(2))
def test_repeated_and_late_interactions_end_in_the_same_state(stream, random):
    """Shuffled, with every interaction twice: the same histories, counts and embeddings."""
    # A withdrawn interaction that arrives late was never counted, so withdrawals do depend on the order.
    stream = [one for one in stream if one.kind != "removal"]
    shuffled = stream * 2
    random.shuffle(shuffled)
    straight, other = exact_state(), exact_state()
    feed(straight, stream)
    feed(other, shuffled)
    seen, again = everything(straight), everything(other)
    assert seen[:2] == again[:2]
    assert seen[2].keys() == again[2].keys()
    for name, embedding in seen[2].items():
        np.testing.assert_allclose(embedding, again[2][name], atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "positive", "makes_edge"),
    [
        ("click", None, True),
        ("purchase", None, True),
        ("like", None, True),
        ("impression", None, False),
        ("rating", None, False),
        ("rating", True, True),
        ("click", False, False),
        ("dislike", None, False),
    ],
)
def test_what_counts_as_positive(kind, positive, makes_edge):
    """The interaction's own word decides, else the list of positive kinds; the history shows the same."""
    state = exact_state()
    state.apply([interaction("anna", "item-0", 5, kind, positive=positive)])
    assert bool(state.user_embeddings(["anna"]).any()) == makes_edge
    shown = state.published.user_state("anna", 0)
    assert [entry.positive for entry in shown.recent] == [makes_edge]
    assert (shown.impressions, shown.positives) == (1, int(makes_edge))
    assert state.published.item_state("item-0", 0).positives == int(makes_edge)


def test_changes_name_what_is_new_or_moved_and_nothing_else():
    """All items at first; then the user and whoever turned; nothing when nothing happened."""
    state = exact_state(publish_min_cosine=0.999)
    first = state.published.take_changes()
    assert (sorted(first.items), first.users) == (TRAINED, [])
    state.apply([interaction("anna", "item-0", 5)])
    second = state.published.take_changes()
    assert second.users == ["anna"]
    assert "item-0" in second.items
    assert "item-4" not in second.items
    assert state.published.take_changes() == type(second)([], [], [], [])


def test_versions_grow_with_every_publication():
    """Each time a user is named, the embedding's version is one higher."""
    state = exact_state()
    for version in range(1, 4):
        state.apply([interaction("anna", f"item-{version}", version)])
        assert state.published.take_changes().users == ["anna"]
        assert state.published.user_state("anna", 0).embedding.version == version


def test_embeddings_are_published_in_the_number_format_asked_for():
    """The bytes of float16 and float32 read back as the embedding, rounded."""
    for dtype in ("float16", "float32"):
        state = exact_state(embedding_dtype=dtype)
        state.apply([interaction("anna", "item-2", 5)])
        state.published.take_changes()
        published = state.published.user_state("anna", 0).embedding
        read = np.frombuffer(published.data, dtype)
        assert (published.dtype, published.dim, read.size) == (dtype, SIZE, SIZE)
        np.testing.assert_allclose(read, state.user_embeddings(["anna"])[0], atol=1e-3)


def test_a_user_of_whom_nothing_is_known_has_no_embedding():
    """A user with impressions alone is published with history and counts, without a vector of zeros."""
    state = exact_state()
    state.apply([interaction("anna", "item-0", 5, "impression")])
    assert state.published.take_changes().users == ["anna"]
    assert state.published.user_state("anna", 0).embedding is None


def test_new_items_get_their_base_from_their_text_whenever_it_comes():
    """An item met before its catalogue entry ends where it would had the entry come first; trained items stay."""
    base = trained_base(text_map=lambda title, _: np.full(SIZE, float(len(title)), np.float32))
    entries = [Item(item_id="new-1", title="four"), Item(item_id="item-0", title="a trained one")]
    early, late = exact_state(base), exact_state(base)
    early.apply_items(entries)
    for state in (early, late):
        state.apply([interaction("anna", "new-1", 5), interaction("anna", "item-0", 6)])
    late.apply_items(entries)
    ids = ["new-1", "item-0"]
    np.testing.assert_allclose(early.item_embeddings(ids), late.item_embeddings(ids), atol=1e-5)
    assert early.item_embeddings(["new-1"]).any()


def test_trained_users_begin_with_their_own_base():
    """A user whom training knew has an embedding before the first positive interaction."""
    base = trained_base(user_ids=["anna"], user_vectors=np.ones((1, SIZE), np.float32))
    state = exact_state(base)
    state.apply([interaction("anna", "item-0", 5, "impression"), interaction("bert", "item-0", 5, "impression")])
    assert state.user_embeddings(["anna"]).any()
    assert not state.user_embeddings(["bert"]).any()


def test_what_has_left_the_window_is_named_once_and_its_place_used_again():
    """Users and uncatalogued items expire with their last interaction; trained items stay; newcomers take the rows."""
    state = exact_state(window_ms=256_000)
    state.apply([interaction("anna", "new-1", 1_000), interaction("bert", "item-0", 900_000)])
    pass_time(state, 1_000)
    state.published.take_changes()
    rows = len(state._nodes)
    pass_time(state, 900_000)
    gone = state.published.take_changes()
    assert (gone.expired_users, gone.expired_items) == (["anna"], ["new-1"])
    assert state.published.take_changes().expired_users == []
    state.apply([interaction("carl", "new-2", 900_000)])
    assert len(state._nodes) == rows
    assert state.published.user_state("carl", 0).impressions == 1
    assert not state.user_embeddings(["carl"]).any()  # the new item brings nothing yet


def test_a_bundle_of_the_same_graph_may_ask_for_histories_of_another_length():
    """Shorter ones hold the newest at once, in a snapshot that is being copied too; longer ones grow from then on.
    Embeddings, counts and versions stay, and nothing is published for it.
    """
    state = exact_state(history_length=3)
    state.apply([interaction("anna", f"item-{number}", 1_000 + number) for number in range(3)])
    state.published.take_changes()
    embeddings = state.user_embeddings(["anna"])
    copy = state.start_snapshot()
    copy.step()

    state.keep_histories_of(2)

    assert [past.item_id for past in state.published.user_state("anna", 0).recent] == ["item-1", "item-2"]
    assert state.finish_snapshot().merge()[0]["history_count"].max() == 2
    changes = state.published.take_changes()
    assert (changes.users, changes.items) == ([], [])
    np.testing.assert_array_equal(state.user_embeddings(["anna"]), embeddings)
    state.keep_histories_of(4)
    state.apply([interaction("anna", f"item-{number}", 2_000 + number) for number in range(3, 5)])
    told = state.published.user_state("anna", 0)
    assert [past.item_id for past in told.recent] == ["item-1", "item-2", "item-3", "item-4"]
    assert told.impressions == 5


def test_an_item_that_no_history_names_any_more_expires():
    """Once a user's newer interactions have pushed the item out of the history, nothing holds it beyond the window."""
    state = exact_state(window_ms=256_000, history_length=2)
    late = [interaction("anna", f"item-{number}", 900_000 + number) for number in range(2)]
    state.apply([interaction("anna", "new-1", 1_000), *late])
    pass_time(state, 900_000)
    assert state.published.take_changes().expired_items == ["new-1"]


@settings(max_examples=30, deadline=None)
@given(streams, st.integers(1, 12), st.sampled_from([0.9, 0.999]))
def test_what_is_published_never_lags_behind_what_is(stream, batch, min_cosine):
    """After every look for changes each published embedding is as near to the present one as the setting asks."""
    state = exact_state(publish_min_cosine=min_cosine, history_length=3)
    for begin in range(0, len(stream), batch):
        feed(state, stream[begin : begin + batch])
        state.published.take_changes()
        facts, nodes = state._nodes.facts, state._nodes.all_nodes()
        z, published = state._nodes.propagation.embeddings(nodes), facts.published[nodes]
        norms = np.linalg.norm(z, axis=1) * np.linalg.norm(published, axis=1)
        met = norms > 0
        assert ((z * published).sum(1)[met] >= (min_cosine - 1e-5) * norms[met]).all()


def test_who_returns_before_the_tombstone_is_not_buried():
    """A user who expired and interacted again between two publications is named as changed, not as expired."""
    state = exact_state(window_ms=256_000)
    state.apply([interaction("anna", "item-0", 1_000)])
    pass_time(state, 900_000)
    state.apply([interaction("anna", "item-1", 900_000)])
    changes = state.published.take_changes()
    assert (sorted(changes.users), changes.expired_users) == (["anna", "witness"], [])


def test_withdrawn_items_expire_like_others():
    """An item taken out of the catalogue leaves once its interactions have."""
    state = exact_state(window_ms=256_000)
    state.apply([interaction("anna", "item-0", 1_000)])
    state.withdraw_items(["item-0", "never-known"])
    pass_time(state, 900_000)
    assert state.published.take_changes().expired_items == ["item-0"]


def test_memory_is_told_per_edge_node_and_entry():
    """With tables filled, an edge takes tens of bytes and a node what its rows hold."""
    state = exact_state()
    stream = [
        interaction(f"user-{user}", f"thing-{(user * 7 + k) % 900}", k) for user in range(2000) for k in range(10)
    ]
    feed(state, stream, batch=1000)
    report = state.memory_report()
    rows = (1 + 3 + 3 + 1) * SIZE * 4
    assert 40 <= report.per_edge <= 80
    assert rows <= report.per_node <= 2 * rows + 200
    assert 53 <= report.per_past_interaction <= 110
    assert report.total >= 20_000 * report.per_edge
