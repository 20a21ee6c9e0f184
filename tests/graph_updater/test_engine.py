"""Records in, batches out."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from updater_parts import CLICKS, NOW_MS, TOPICS, base, click, embeddings, engine, later, record, records, state

from graph_updater.engine import EngineThread, warm_up
from graph_updater.graph import adjacency, push
from graph_updater.graph.config import GraphConfig
from graph_updater.state import histories, stream_time
from graph_updater.state.updater_state import UpdaterState
from runtime.records import Record, TopicPartition
from schemas.codec import MessageDecoder
from schemas.messages import Item, ItemState, UserState


def states_in(outbound, topic, message):
    """The decoded states among the records for a topic, None for a tombstone, by key."""
    decoder = MessageDecoder(message)
    return {
        one.key.decode(): None if one.value is None else decoder.decode(one.value, one.headers)
        for one in outbound
        if one.topic == topic
    }


def test_an_interaction_comes_out_as_fresh_states_of_both():
    """The user's state has the new history and an embedding; the item's state counts the click."""
    of = engine()
    of.absorb(records([click("u", "i1", 5)]))

    batch = of.collect().batch
    outbound = of.encode(batch)

    user = states_in(outbound, TOPICS.user_states, UserState)["u"]
    item = states_in(outbound, TOPICS.item_states, ItemState)["i1"]
    assert [(past.item_id, past.event_time_ms) for past in user.recent] == [("i1", NOW_MS + 5)]
    assert user.embedding is not None
    assert (item.impressions, item.positives) == (1, 1)
    assert batch.offsets == {CLICKS: 1}
    assert batch.event_times_ms == [NOW_MS + 5]


def test_nothing_is_collected_where_nothing_was_read():
    """A quiet stream makes no batches."""
    of = engine()
    assert of.collect().batch is None
    of.absorb(records([click("u", "i1")]))
    assert of.collect().batch is not None
    assert of.collect().batch is None


def test_everything_is_every_state_and_what_has_changed_since():
    """Also where nothing was read; dead letters and offsets of what was read are in it."""
    of = engine()
    of.absorb(records([click("u", "i1"), click("v", "i2")]))
    of.collect()
    of.absorb([record(b"rubbish", 2)])

    batch = of.everything()

    assert sorted(batch.users) == ["u", "v"]
    assert sorted(batch.items) == sorted(base().item_ids)
    assert batch.offsets == {CLICKS: 3}
    assert [dead.offset for dead in batch.dead_letters] == [2]
    assert len(states_in(of.encode(batch), TOPICS.user_states, UserState)) == 2
    assert of.collect().batch is None
    assert sorted(of.everything().users) == ["u", "v"]


def test_a_record_that_cannot_be_read_becomes_a_dead_letter_of_the_batch():
    """It is kept as it came, with its place; the offsets passes it all the same."""
    of = engine()
    of.absorb([record(b"rubbish", 4), record(click("u", "i1"), 5)])

    batch = of.collect().batch

    (dead,) = batch.dead_letters
    assert (dead.source, dead.offset) == (CLICKS, 4)
    assert (dead.letter.topic, dead.letter.value) == ("interactions.dead-letter", b"rubbish")
    assert of.encode(batch)[0] is dead.letter
    assert batch.offsets == {CLICKS: 6}


def test_a_new_item_has_its_words_before_it_meets_anybody():
    """An item and the first interaction with it in one poll, in either order, end alike."""
    ends = []
    for order in (1, -1):
        of = state()
        messages = [Item(item_id="new", title="four"), click("u", "new")]
        engine(of).absorb(list(map(record, messages))[::order])
        ends.append(of.item_embeddings(["new"]))

    np.testing.assert_array_equal(*ends)
    assert ends[0].any()


def test_who_has_left_gets_a_tombstone():
    """A user whose last interaction has left the window is withdrawn from the topic."""
    of = engine(window_ms=1_000)
    of.absorb(records([click("old", "i1", 0)]))
    of.collect()
    of.absorb(later(1_000_000, first=1))

    outbound = of.encode(of.collect().batch)

    users = states_in(outbound, TOPICS.user_states, UserState)
    assert users["old"] is None
    assert users["new"] is not None


def test_an_id_that_left_after_it_was_collected_gets_a_tombstone():
    """A batch may wait; what is sent is always the present."""
    of = engine(window_ms=1_000)
    of.absorb(records([click("old", "i1", 0)]))
    waiting = of.collect().batch
    of.absorb(later(1_000_000, first=1))

    assert states_in(of.encode(waiting), TOPICS.user_states, UserState) == {"old": None}


def test_a_withdrawn_item_without_interactions_leaves_with_the_window():
    """The catalogue's tombstone alone keeps an item only as long as somebody's interactions do."""
    of = engine(window_ms=1_000)
    of.absorb([record(Item(item_id="new", title="four"), 0)])
    of.absorb([Record(TOPICS.items, 0, 1, b"new", None)])
    of.absorb(records([click("u", "i1", 0), click("u", "i1", 5_000)]))
    of.absorb(later(1_000_000, first=2))

    outbound = of.encode(of.collect().batch)

    assert states_in(outbound, TOPICS.item_states, ItemState)["new"] is None


def test_a_snapshot_is_captured_with_a_batch():
    """The copy, made beside the stream, is of a batch's moment: with its offsets, and nothing left to publish."""
    of = engine()
    of.absorb(records([click("u", "i1")]))
    of.begin_snapshot()
    of.absorb(records([click("v", "i2", 3)], first=1))

    collection = of.collect()
    while collection.capture is None:
        collection = of.collect()
    arrays, metadata = collection.capture.copy.merge()
    restored = UpdaterState.restore(GraphConfig(epsilon=0.0, embedding_dtype="float32"), base(), arrays, metadata)

    assert collection.capture.offsets == {CLICKS: 2}
    assert restored.published.take_changes().users == []
    np.testing.assert_allclose(restored.user_embeddings(["u", "v"]), of._state.user_embeddings(["u", "v"]), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(ids=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80), min_size=3, max_size=3))
def test_ids_of_any_unicode_come_out_as_they_went_in(ids):
    """User, item and event ids are opaque; what they hold, and how long they are, changes nothing."""
    user, item, event = ids
    of = engine()
    of.absorb(records([click(user, item, event_id=event)]))

    outbound = of.encode(of.collect().batch)

    users = states_in(outbound, TOPICS.user_states, UserState)
    assert list(users) == [user]
    (past,) = users[user].recent
    assert past.item_id == item
    assert past.event_id == event or len(event.encode()) > 40 or event.endswith("\0")
    assert item in states_in(outbound, TOPICS.item_states, ItemState)


@settings(max_examples=25, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 50), st.sampled_from(["click", "dislike"])),
        min_size=1,
        max_size=40,
    ),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    seed=st.randoms(use_true_random=False),
)
def test_the_end_does_not_depend_on_how_the_stream_was_read(events, cuts, seed):
    """However partitions interleave and batches are cut, the same records end in the same embeddings and histories."""
    messages = [
        click(f"u{user}", f"i{item}", time, event_id=f"e{number}", kind=kind)
        for number, (user, item, time, kind) in enumerate(events)
    ]
    partitions = {user: [m for m in messages if m.user_id == f"u{user}"] for user in range(4)}
    interleaved = []
    while any(partitions.values()):
        interleaved.append(partitions[seed.choice([p for p, left in partitions.items() if left])].pop(0))
    one, other = state(), state()
    engine(one).absorb(records(messages))
    reader = engine(other)
    borders = sorted({0, len(interleaved), *(cut for cut in cuts if cut < len(interleaved))})
    for begin, end in pairwise(borders):
        reader.absorb(records(interleaved[begin:end], first=begin))

    users, items = [f"u{n}" for n in range(4)], [f"i{n}" for n in range(5)]
    np.testing.assert_allclose(embeddings(one, users, items), embeddings(other, users, items), atol=1e-5)
    for user in {message.user_id for message in messages}:
        assert one.published.user_state(user, 0).recent == other.published.user_state(user, 0).recent


def test_the_offsets_is_kept_per_partition():
    """Each partition's next offset, both topics together."""
    of = engine(offsets={TopicPartition(TOPICS.items, 2): 9})
    of.absorb([record(click("u", "i"), 3, partition=1), record(click("v", "i"), 7, partition=0)])

    assert of.collect().batch.offsets == {
        TopicPartition(TOPICS.items, 2): 9,
        TopicPartition(TOPICS.interactions, 1): 4,
        TopicPartition(TOPICS.interactions, 0): 8,
    }


async def test_calls_run_one_after_the_other_in_one_thread():
    """The order of the calls is the order of the work, and none overlap."""
    seen, threads = [], set()

    def work(number):
        threads.add(threading.get_ident())
        seen.append(number)
        return number

    with EngineThread() as compute:
        results = await asyncio.gather(*(compute(work, number) for number in range(50)))

    assert results == seen == list(range(50))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_what_the_work_raises_comes_out_of_the_call():
    """Errors are the caller's."""
    with EngineThread() as compute:
        with pytest.raises(ZeroDivisionError):
            await compute(lambda: 1 / 0)
        assert await compute(max, 1, 2) == 2


def test_every_kernel_is_compiled_by_the_warm_up():
    """No kernel that Python calls is left to be compiled while records wait."""
    warm_up()
    kernels = (
        adjacency.apply_ops,
        push.apply_changes,
        push.refresh_and_push,
        push.embed,
        push.resum,
        push.recompute,
        histories._record,
        histories._clear,
        stream_time._observe,
    )
    assert all(kernel.signatures for kernel in kernels)
