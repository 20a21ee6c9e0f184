"""Which offsets may be committed: examples, and the promise itself as a property."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.offsets import OffsetTracker
from runtime.records import TopicPartition

HERE, THERE = TopicPartition("t", 0), TopicPartition("t", 1)


def tracking(*partitions):
    """A tracker that holds these partitions."""
    tracker = OffsetTracker()
    tracker.assign(partitions)
    return tracker


def test_an_unfinished_record_holds_back_those_behind_it():
    """What finishes out of order becomes committable when the oldest one finishes."""
    tracker = tracking(HERE)
    for offset in (4, 5, 6):
        tracker.started(HERE, offset)
    tracker.done(HERE, 5)
    tracker.done(HERE, 6)
    assert tracker.committable() == {}
    tracker.done(HERE, 4)
    assert tracker.committable() == {HERE: 7}


def test_what_was_committed_is_not_offered_again():
    """Only progress is committable."""
    tracker = tracking(HERE)
    tracker.started(HERE, 0)
    tracker.done(HERE, 0)
    tracker.committed({HERE: 1})
    assert tracker.committable() == {}


def test_a_record_of_a_partition_taken_away_is_not_worked_on():
    """Starting tells whether the record is still ours; finishing one that is not changes nothing."""
    tracker = tracking(HERE, THERE)
    assert tracker.started(HERE, 0)
    tracker.revoke([HERE])
    assert not tracker.started(HERE, 1)
    tracker.done(HERE, 0)
    tracker.committed({HERE: 9})
    assert (tracker.committable(), tracker.in_flight()) == ({}, 0)


def test_a_partition_that_comes_back_begins_anew():
    """Late work of the time before does not count for records read again and still in flight."""
    tracker = tracking(HERE)
    tracker.started(HERE, 0)
    tracker.revoke([HERE])
    tracker.assign([HERE])
    tracker.started(HERE, 0)
    tracker.started(HERE, 1)
    tracker.done(HERE, 1)
    assert tracker.committable() == {}
    tracker.done(HERE, 0)
    assert tracker.committable() == {HERE: 2}


def test_records_read_again_count_once():
    """After a seek back, finished records are no longer in flight and those in flight are not doubled."""
    tracker = tracking(HERE)
    for offset in (0, 1, 0, 1):
        tracker.started(HERE, offset)
    assert tracker.in_flight([HERE, THERE]) == 2
    tracker.done(HERE, 0)
    tracker.done(HERE, 0)
    tracker.started(HERE, 0)
    assert tracker.in_flight() == 1


@settings(max_examples=200)
@given(st.data())
def test_no_unfinished_record_is_ever_passed_over(data):
    """At every moment the committable offset is the one behind the longest finished run, gaps or not."""
    gaps = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=25))
    offsets = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    tracker, started, finished = tracking(HERE), [], set()
    while len(finished) < len(offsets):
        unfinished = [offset for offset in started if offset not in finished]
        if len(started) < len(offsets) and (not unfinished or data.draw(st.booleans())):
            started.append(offsets[len(started)])
            tracker.started(HERE, started[-1])
        else:
            offset = data.draw(st.sampled_from(unfinished))
            finished.add(offset)
            tracker.done(HERE, offset)
        run = [offset for n, offset in enumerate(offsets) if set(offsets[: n + 1]) <= finished]
        assert tracker.committable() == ({HERE: run[-1] + 1} if run else {})
        assert tracker.in_flight() == len(started) - len(finished)


def test_what_lies_behind_a_split_waits_for_what_lies_before_it():
    """Fresh records may finish first; they count once the last old one has been read and is finished."""
    tracker = tracking(HERE)
    tracker.split(HERE, 10)
    for offset in (10, 4, 11):
        tracker.started(HERE, offset)
    tracker.done(HERE, 10)
    assert tracker.committable() == {}
    tracker.done(HERE, 4)
    assert tracker.committable() == {HERE: 5}
    tracker.earlier_read(HERE)
    assert tracker.committable() == {HERE: 11}
    tracker.done(HERE, 11)
    assert (tracker.committable(), tracker.in_flight()) == ({HERE: 12}, 0)


def test_a_split_counts_only_for_partitions_that_are_held():
    """Told of one that was taken away meanwhile, nothing happens."""
    tracker = tracking(HERE)
    tracker.split(THERE, 5)
    tracker.earlier_read(THERE)
    tracker.earlier_read(HERE)
    assert tracker.committable() == {}


@settings(max_examples=200)
@given(st.data())
def test_with_a_split_too_no_unfinished_record_is_passed_over(data):
    """Whatever the order in which two places start and finish, nothing beyond an unfinished or unread record counts."""
    split, end = 4, 8
    tracker, finished = tracking(HERE), set()
    tracker.split(HERE, split)
    unread = {"earlier": list(range(split)), "later": list(range(split, end))}
    started, told = [], False
    while len(finished) < end or not told:
        moves = [place for place, offsets in unread.items() if offsets]
        moves += ["finish"] * bool(set(started) - finished) + ["tell"] * (not unread["earlier"] and not told)
        move = data.draw(st.sampled_from(moves))
        if move == "finish":
            offset = data.draw(st.sampled_from(sorted(set(started) - finished)))
            finished.add(offset)
            tracker.done(HERE, offset)
        elif move == "tell":
            told = True
            tracker.earlier_read(HERE)
        else:
            started.append(unread[move].pop(0))
            tracker.started(HERE, started[-1])
        offered = tracker.committable().get(HERE, 0)
        assert set(range(offered)) <= finished
        assert tracker.in_flight() == len(started) - len(finished)
    assert tracker.committable() == {HERE: end}
