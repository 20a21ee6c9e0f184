"""Histories against a plain reference, in any order of arrival."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_updater.state.histories import (
    DROP_EDGE,
    KEEP_EDGE,
    NEGATIVE,
    NEUTRAL,
    POSITIVE,
    SET_EDGE,
    WITHDRAWN,
    Entries,
    Histories,
    Verdicts,
    pack_event_ids,
)

PEOPLE, THINGS = 3, 4
events = st.lists(
    st.tuples(
        st.integers(0, PEOPLE - 1),
        st.integers(PEOPLE, PEOPLE + THINGS - 1),
        st.integers(0, 30),
        st.sampled_from([NEUTRAL, NEGATIVE, POSITIVE]),
    ),
    max_size=40,
)
"""User, item, time, judgement; the event id is made of user, item and time, so that repeats are likely."""


def record(histories, stream, batch=6, ids=None):
    """Records the stream in batches; the verdicts, put together."""
    verdicts = []
    ids = ids or [f"{user}/{item}/{time}" for user, item, time, _ in stream]
    for begin in range(0, len(stream), batch):
        user, item, time, judgement = zip(*stream[begin : begin + batch], strict=True)
        names = ids[begin : begin + batch]
        entries = Entries(
            np.array(item, np.int32),
            np.array(time, np.int64),
            np.array(judgement, np.uint8),
            np.array([grade_of(*one) for one in stream[begin : begin + batch]], np.uint8),
            pack_event_ids(names),
        )
        verdicts.append(histories.record(np.array(user, np.int32), entries))
    columns = [np.concatenate(column).tolist() for column in zip(*verdicts, strict=True)] if verdicts else [[]] * 4
    return Verdicts(*columns)


def grade_of(user, item, time, judgement):
    """A grade that differs from event to event, and from repeat to repeat that is judged otherwise."""
    return 0 if judgement == WITHDRAWN else (37 * user + 11 * item + 5 * time + 60 * judgement) % 256


def histories_of(length):
    """Empty histories for all people and things."""
    histories = Histories(length)
    histories.add_nodes(PEOPLE + THINGS)
    return histories


@settings(max_examples=80, deadline=None)
@given(events, st.integers(1, 12), st.integers(1, 9))
def test_a_history_is_the_last_interactions_in_order_of_time(stream, length, batch):
    """Each user's history is the latest `length` distinct interactions, with the strongest judgement of repeats."""
    histories = histories_of(length)
    record(histories, stream, batch)
    for user in range(PEOPLE):
        known = {}
        for item, time, judgement in [(i, t, j) for u, i, t, j in stream if u == user]:
            # What a full history has let go is forgotten: a repeat of it is new again.
            held = sorted(known, key=lambda key: (key[1], f"{user}/{key[0]}/{key[1]}"))[-length:]
            known = {key: known[key] for key in held}
            before = known.get((item, time), (NEUTRAL, 0))
            known[item, time] = max(judgement, before[0]), max(grade_of(user, item, time, judgement), before[1])
        expected = sorted(known.items(), key=lambda entry: (entry[0][1], _packed(user, *entry[0])))[-length:]
        shown = [(entry.item, entry.time_ms, entry.positive, entry.grade) for entry in histories.entries(user)]
        assert shown == [(item, time, judgement == POSITIVE, grade) for (item, time), (judgement, grade) in expected]
    kept = histories.entries_of(np.arange(PEOPLE, dtype=np.int32)).item
    assert histories.mentions[: PEOPLE + THINGS].tolist() == np.bincount(kept, minlength=PEOPLE + THINGS).tolist()


@settings(max_examples=50, deadline=None)
@given(events, events, st.integers(1, 12), st.integers(1, 12))
def test_histories_of_another_length_are_cut_to_the_newest_or_grow_from_then_on(before, after, length, other):
    """What is left is the end of what was; what comes later is kept as in histories that had this length and entries
    from the beginning.
    """
    histories = histories_of(length)
    record(histories, before)
    former = [histories.entries(user) for user in range(PEOPLE)]

    cut = histories.keep(other)

    assert [histories.entries(user) for user in range(PEOPLE)] == [entries[-other:] for entries in former]
    assert cut.tolist() == [user for user, entries in enumerate(former) if len(entries) > other]
    people = np.arange(PEOPLE, dtype=np.int32)
    fresh = histories_of(other)
    lengths = np.zeros(PEOPLE + THINGS, np.int64)
    lengths[:PEOPLE] = [len(histories.entries(user)) for user in range(PEOPLE)]
    fresh.restore(lengths, histories.entries_of(people))
    assert record(histories, after) == record(fresh, after)
    assert [histories.entries(user) for user in range(PEOPLE)] == [fresh.entries(user) for user in range(PEOPLE)]
    assert histories.mentions.tolist() == fresh.mentions.tolist()


def _packed(user, item, time):
    return pack_event_ids([f"{user}/{item}/{time}"])[0].tolist()


@settings(max_examples=50, deadline=None)
@given(events, st.randoms(use_true_random=False))
def test_repeats_and_order_of_arrival_change_neither_history_nor_counts(stream, random):
    """As far as the history reaches, a shuffled stream with repeats ends in the same entries and the same counts."""
    straight, other = histories_of(100), histories_of(100)
    verdicts = record(straight, stream)
    counts = [sum(column) for column in (verdicts.counted, verdicts.gained, verdicts.graded)]
    shuffled = stream * 2
    random.shuffle(shuffled)
    verdicts = record(other, shuffled)
    assert [sum(column) for column in (verdicts.counted, verdicts.gained, verdicts.graded)] == counts
    kept = [entry.grade for user in range(PEOPLE) for entry in straight.entries(user)]
    assert sum(kept) == counts[2]
    assert [straight.entries(user) for user in range(PEOPLE)] == [other.entries(user) for user in range(PEOPLE)]
    assert straight.mentions.tolist() == other.mentions.tolist()
    assert straight.mentions.sum() == straight.entry_count


def test_of_one_items_judgements_the_latest_decides_over_the_edge():
    """A late positive does not bring back what a later negative took away; an impression leaves the edge alone."""
    histories = histories_of(10)
    edges = record(
        histories, [(0, 3, 10, POSITIVE), (0, 3, 20, NEGATIVE), (0, 3, 15, POSITIVE), (0, 3, 30, NEUTRAL)], batch=1
    ).edge
    assert edges == [SET_EDGE, DROP_EDGE, KEEP_EDGE, KEEP_EDGE]


def test_a_withdrawal_takes_the_items_earlier_entries_out_for_good():
    """Withdrawn interactions vanish from the history, stay away when they arrive again, and later ones count anew."""
    histories = histories_of(10)
    stream = [
        (0, 3, 10, POSITIVE),
        (0, 4, 11, POSITIVE),
        (0, 3, 20, WITHDRAWN),
        (0, 3, 10, POSITIVE),
        (0, 3, 15, POSITIVE),
    ]
    counted, _, _, edges = record(histories, stream, batch=2)
    assert [entry.item for entry in histories.entries(0)] == [4]
    assert counted == [1, 1, 0, 0, 0]
    assert edges == [SET_EDGE, SET_EDGE, DROP_EDGE, KEEP_EDGE, KEEP_EDGE]
    assert record(histories, [(0, 3, 25, POSITIVE)]).edge == [SET_EDGE]
    assert [entry.item for entry in histories.entries(0)] == [4, 3]


@pytest.mark.parametrize("withdrawn_at", [10, 20])
def test_a_withdrawn_interaction_may_be_sent_again_with_another_time(withdrawn_at):
    """A withdrawal of the same millisecond or later makes its event id free: under it a corrected event counts anew."""
    histories = histories_of(10)
    stream = [(0, 3, 10, POSITIVE), (0, 3, withdrawn_at, WITHDRAWN), (0, 3, 30, POSITIVE)]
    counted, _, _, edges = record(histories, stream, batch=1, ids=["a click", "its withdrawal", "a click"])
    assert counted == [1, 0, 1]
    assert edges == [SET_EDGE, DROP_EDGE, SET_EDGE]
    assert [(entry.item, entry.time_ms) for entry in histories.entries(0)] == [(3, 30)]


@pytest.mark.parametrize("order", [1, -1])
def test_a_withdrawal_covers_an_interaction_of_the_same_millisecond(order):
    """Whichever of the two comes first, the interaction is not shown and the edge is not there at the end."""
    histories = histories_of(10)
    stream = [(0, 3, 10, POSITIVE), (0, 3, 10, WITHDRAWN)][::order]
    edges = record(histories, stream, batch=1, ids=["a", "b"]).edge
    assert histories.entries(0) == []
    assert [edge for edge in edges if edge != KEEP_EDGE][-1] == DROP_EDGE


def test_the_same_item_and_time_under_another_id_is_counted_once():
    """Two events that tell the same are one; of the judgements the stronger stands, and gains a positive once."""
    histories = histories_of(10)
    stream = [(0, 3, 10, NEUTRAL), (0, 3, 10, POSITIVE), (0, 3, 10, POSITIVE)]
    counted, gained, _, edges = record(histories, stream, ids=["b", "a", "c"])
    assert counted == [1, 0, 0]
    assert gained == [0, 1, 0]
    assert edges == [KEEP_EDGE, SET_EDGE, SET_EDGE]
    assert [(entry.event_id, entry.positive) for entry in histories.entries(0)] == [("a", True)]


def test_of_two_events_that_tell_the_same_the_better_grade_stays():
    """Also where the one with the worse grade brings the id that is kept."""
    histories = histories_of(10)
    graded = record(histories, [(0, 3, 10, POSITIVE), (0, 3, 10, NEUTRAL)], ids=["b", "a"]).graded
    (entry,) = histories.entries(0)
    assert (entry.event_id, entry.grade) == ("a", grade_of(0, 3, 10, POSITIVE))
    assert graded == [entry.grade, 0]


def test_an_interaction_older_than_a_full_history_is_counted_but_not_kept():
    """It moves the counts and the graph; the history stays as it is."""
    histories = histories_of(2)
    counted, gained, _, edges = record(histories, [(0, 3, 10, NEUTRAL), (0, 4, 11, NEUTRAL), (0, 5, 1, POSITIVE)])
    assert [entry.time_ms for entry in histories.entries(0)] == [10, 11]
    assert (counted[2], gained[2], edges[2]) == (1, 1, SET_EDGE)


def test_event_ids_come_back_as_they_were_unless_they_are_long():
    """Any Unicode up to 40 bytes is kept; a longer id is stood for by a digest that differs from others'."""
    names = ["a", "ключ-1", "x" * 40, "y" * 41, "y" * 41 + "z", "ends with zero\0"]
    histories = histories_of(10)
    count = len(names)
    histories.record(
        np.zeros(count, np.int32),
        Entries(
            np.full(count, 3, np.int32),
            np.arange(count),
            np.zeros(count, np.uint8),
            np.zeros(count, np.uint8),
            pack_event_ids(names),
        ),
    )
    shown = [entry.event_id for entry in histories.entries(0)]
    assert shown[:3] == names[:3]
    assert len(set(shown)) == count
    assert all(len(name) == 40 for name in shown[3:])


def test_clearing_gives_the_cells_back():
    """Users who come and go over and over need no more cells than once."""
    histories = histories_of(20)
    stream = [(user, 3, time, POSITIVE) for user in range(PEOPLE) for time in range(20)]
    record(histories, stream)
    cells = histories.cells.item.shape[0]
    for _ in range(10):
        for user in range(PEOPLE):
            histories.clear(user)
        assert histories.entry_count == 0
        assert not histories.mentions.any()
        record(histories, stream)
    assert histories.cells.item.shape[0] == cells
