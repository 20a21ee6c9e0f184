"""Updaters that share the users, with all that they tell each other, against one that has all users."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_fleet import USERS, Fleet
from updater_parts import NOW_MS, base, click

from graph_updater.graph.config import GraphConfig
from graph_updater.graph.shard import Shard
from graph_updater.state.updater_state import UpdaterState
from schemas.messages import Item, ItemState

DAY_MS = 86_400_000
KINDS = st.sampled_from(["click", "click", "impression", "dislike", "removal"])
events = st.lists(
    st.builds(
        lambda user, item, number, kind: click(f"u{user}", f"i{item}", number, event_id=f"e{number}", kind=kind),
        st.integers(0, 7),
        st.integers(0, 9),
        st.integers(0, 60),
        KINDS,
    ),
    min_size=1,
    max_size=60,
)
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), st.integers(1, 12)),
        st.tuples(st.sampled_from(["publish", "read", "restart", "take over", "rebuild", "fail"]), st.integers(0, 3)),
    ),
    max_size=25,
)
"""What happens to shards: reading, telling, ends from which a snapshot, a standby or the topics recover."""


def play(fleet, stream, what):
    """Feeds the stream while things happen; then all comes to rest."""
    at = 0
    for kind, number in what:
        if kind == "feed":
            fleet.feed(stream[at : at + number])
            at += number
        else:
            fleet.happen(kind, number % fleet.shards)
    fleet.feed(stream[at:])
    fleet.settle()


@settings(max_examples=60, deadline=None)
@given(events, happenings, st.sampled_from([1, 2, 4]))
def test_shards_together_know_what_one_updater_knows(stream, what, shards):
    """Every user's state in its shard, every item's state in all of them, and each published once: whatever was told
    late, and whoever ended meanwhile.
    """
    fleet = Fleet(shards)
    play(fleet, stream, what)
    fleet.check()


@pytest.mark.parametrize("kind", ["restart", "take over", "rebuild"])
def test_a_shard_that_begins_anew_tells_nothing_again(kind):
    """What the topic holds of it counts as told."""
    fleet = Fleet(2)
    fleet.feed([click(f"u{n % 8}", f"i{n % 5}", n, event_id=f"e{n}") for n in range(40)])
    fleet.settle()
    fleet.happen(kind, 0)
    assert fleet.settle() == 0
    fleet.check()


def test_a_leader_does_not_believe_what_it_said_before():
    """It reads its own records, some after it has said something newer."""
    fleet = Fleet(2)
    leader, (user, *_) = fleet.leaders[0], fleet.users_of(0)
    for number in range(3):
        fleet.feed([click(user, "i1", number, event_id=f"e{number}"), click(user, f"i{2 + number}", number)])
        leader.publish()
    for _ in range(len(fleet.topic.records)):
        leader.read(most=1)
        assert leader.publish() == 0
    fleet.settle()
    fleet.check()


def test_what_one_shard_counts_another_publishes():
    """An impression moves no embedding; the item's state is published all the same, by whichever shard does."""
    fleet = Fleet(2)
    fleet.feed([click("u0", f"i{n}", n, event_id=f"e{n}") for n in range(6)])
    fleet.settle()
    fleet.feed([click("u0", f"i{n}", 10 + n, event_id=f"again {n}", kind="impression") for n in range(6)])
    changed = []
    for _ in range(2):
        for leader in fleet.leaders:
            leader.read()
            leader.publish()
            changed += leader.changed
    assert sorted(set(changed)) == [f"i{n}" for n in range(6)]
    assert {state.item_state("i1").last_event_time_ms for state in fleet.states} == {NOW_MS + 11}


def test_a_new_shard_does_not_count_again_what_is_published():
    """The records that it replays were its users' when another updater counted them."""
    shard = UpdaterState(GraphConfig(), base(), Shard(0, 2))
    shard.apply([click("u0", "i1", n, event_id=f"e{n}") for n in range(5)])
    shard.shared.adopt_own_counts(are_published=False)
    assert shard.published.item_state("i1", 0).impressions == 5
    shard.shared.adopt_own_counts(are_published=True)
    assert shard.published.item_state("i1", 0).impressions == 0
    states = [
        ItemState(
            item_id=f"i{n}", embedding=None, impressions=9, positives=9, last_event_time_ms=1, published_time_ms=1
        )
        for n in range(6)
    ]
    adoption = shard.adoption()
    adoption.take_items(states)
    adoption.finish()
    counts = {f"i{n}": shard.published.item_state(f"i{n}", 0).impressions for n in range(6)}
    assert counts == {name: 9 if Shard(0, 2).publishes(name) else 0 for name in counts}


def test_counts_of_interactions_that_are_gone_stay():
    """A shard rebuilt from few retained interactions still has told what it once counted, and no other counts less."""
    fleet = Fleet(2)
    fleet.feed([click("u0", "i1", n, event_id=f"e{n}") for n in range(30)])
    fleet.settle()
    (shard,) = [number for number in range(2) if "u0" in fleet.users_of(number)]
    fleet.expire(shard, 20)
    fleet.happen("rebuild", shard)
    fleet.settle()
    assert {state.item_state("i1").impressions for state in fleet.states} == {30}


def test_another_space_leaves_the_counts_as_they_are():
    """Shards go over to another bundle one after the other; what each has counted stays its own."""
    fleet = Fleet(2)
    fleet.feed([click(f"u{n % 8}", f"i{n % 3}", n, event_id=f"e{n}") for n in range(40)])
    fleet.settle()
    for number in (0, 1, 0):
        fleet.happen("other space", number)
        fleet.settle()
        for state in fleet.states:
            assert [state.item_state(f"i{n}").impressions for n in range(3)] == [14, 13, 13]
    fleet.happen("other space", 1)
    fleet.settle()
    fleet.check()
    assert all(len(leader.items()) == 6 for leader in fleet.leaders)


def test_a_failed_transaction_is_made_up_for_and_nothing_else():
    """What was told before it is known to be published."""
    fleet = Fleet(2)
    leader, (user, another, *_) = fleet.leaders[0], fleet.users_of(0)
    fleet.feed([click(user, f"i{n}", n, event_id=f"e{n}") for n in range(5)])
    fleet.settle()
    fleet.settle()
    fleet.feed([click(another, "i5", 10)])
    assert leader.publish(fails=True) == 1
    assert leader.publish() == 1
    fleet.settle()
    fleet.check()


def test_an_end_is_told_although_the_item_is_back():
    """A shard told edges of an item; then it forgets the item, and learns of it again from another shard."""
    fleet = Fleet(2, user_idle_ms=DAY_MS)
    (first, clock_of_first, *_), (second, *_) = fleet.users_of(0), fleet.users_of(1)
    leader, other = fleet.leaders
    fleet.feed([click(first, "new", 0, event_id="a")])
    fleet.settle()
    fleet.feed([click(clock_of_first, "i1", 5 * DAY_MS + n, event_id=f"later {n}") for n in range(8)])
    assert "new" not in leader.items()
    fleet.feed([click(second, "new", 5 * DAY_MS, event_id="b")])
    other.publish()
    leader.read()
    assert "new" in leader.items()
    fleet.settle()
    assert [state.item_state("new").impressions for state in fleet.states] == [1, 1]
    assert "0-of-2/new" not in fleet.topic.latest()


def test_an_item_is_forgotten_once_no_shard_needs_it():
    """Idle in one shard but in use in another it stays, with its counts; then all forget it, and its parts end."""
    fleet = Fleet(2, user_idle_ms=DAY_MS)
    (first, clock_of_first, *_), (second, clock_of_second, *_) = fleet.users_of(0), fleet.users_of(1)

    def pass_time(user, days):
        fleet.feed([click(user, "i1", days * DAY_MS + n, event_id=f"{user}-{days}-{n}") for n in range(8)])
        fleet.settle()

    fleet.feed([click(first, "new", 0, event_id="a"), click(second, "new", 1, event_id="b")])
    fleet.feed([click(second, "new", 2 * DAY_MS, event_id="c")])
    pass_time(clock_of_second, 2)
    pass_time(clock_of_first, 5)
    assert first not in fleet.leaders[0].state._nodes.ids.users
    assert [state.item_state("new").impressions for state in fleet.states] == [3, 3]

    pass_time(clock_of_second, 9)
    pass_time(clock_of_first, 12)
    pass_time(clock_of_second, 13)
    assert not any("new" in state.items for state in fleet.states)
    assert not [key for key in fleet.topic.latest() if key.endswith("/new")]

    fleet.feed([click(user, "i2", 13 * DAY_MS, event_id=f"{user} comes") for user in USERS])  # rows are used again
    fleet.feed([click(user, f"new-{user}", 13 * DAY_MS, event_id=f"{user} goes on") for user in USERS])
    fleet.settle()
    told = {key.partition("/")[2] for key in fleet.topic.latest()}
    assert told <= fleet.leaders[0].items().keys()
    assert {f"new-{user}" for user in USERS} <= told
    assert all(state.item_state("new-u3").impressions == 1 for state in fleet.states)


def test_an_item_that_a_history_has_lost_is_forgotten_by_all():
    """That it was in a history of another shard is known, and that it is no longer."""
    fleet = Fleet(2, user_idle_ms=DAY_MS)
    (clock_of_first, *_), (second, *_) = fleet.users_of(0), fleet.users_of(1)
    fleet.feed([click(second, "new", 0, event_id="a", kind="impression")])
    fleet.settle()
    for days in range(1, 12):
        for user in (clock_of_first, second):
            fleet.feed([click(user, "i1", days * DAY_MS // 2 + n, event_id=f"{user}-{days}-{n}") for n in range(8)])
        fleet.settle()
        if days < 6:
            assert all("new" in state.items for state in fleet.states)
    assert not any("new" in state.items for state in fleet.states)


def test_each_item_is_published_by_one_shard():
    """The states of all items, those of the bundle and new ones, come from one shard each."""
    fleet = Fleet(4)
    fleet.feed([click(f"u{n % 8}", f"n{n}", n, event_id=f"e{n}") for n in range(40)])
    fleet.settle()
    published = [fleet.published_items(number) for number in range(4)]
    assert sorted(name for names in published for name in names) == sorted(
        [*(f"i{n}" for n in range(6)), *(f"n{n}" for n in range(40))]
    )
    assert all(Shard(number, 4).publishes(name) for number, names in enumerate(published) for name in names)


def test_parts_of_another_number_of_shards_are_left_alone():
    """They are those of a former layout."""
    fleet = Fleet(2)
    fleet.feed([click(f"u{n % 8}", "i1", n, event_id=f"e{n}") for n in range(20)])
    fleet.settle()
    wider = Fleet(4, topic=fleet.topic)
    wider.settle()
    assert wider.states[0].item_state("i1").impressions == 0


def test_catalogue_entries_reach_every_shard():
    """Texts give items their base embedding in each of them."""
    fleet = Fleet(2)
    fleet.catalogue([Item(item_id="new", title="abc")])
    fleet.feed([click("u1", "new", 1)])
    fleet.settle()
    fleet.check()
    assert all(np.any(state.embedding("new")) for state in fleet.states)
