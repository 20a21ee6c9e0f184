"""Which offsets may be committed: examples, and property tests against a plain reference."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.offsets import OffsetTracker
from runtime.records import TopicPartition

HERE, THERE = TopicPartition("t", 0), TopicPartition("t", 1)
EPOCH = 1


def tracking(*partitions):
    """A tracker that holds these partitions."""
    tracker = OffsetTracker()
    tracker.assign(dict.fromkeys(partitions, EPOCH))
    return tracker


def test_an_unfinished_record_holds_back_those_behind_it():
    """What finishes out of order becomes committable when the oldest one finishes."""
    tracker = tracking(HERE)
    for offset in (4, 5, 6):
        tracker.started(HERE, EPOCH, offset)
    tracker.done(HERE, EPOCH, 5)
    tracker.done(HERE, EPOCH, 6)
    assert tracker.committable() == {}
    tracker.done(HERE, EPOCH, 4)
    assert tracker.committable() == {HERE: 7}


@pytest.mark.parametrize("split", [None, 5])
def test_finishing_tells_whether_the_record_was_in_flight(split):
    """True once, also in a partition read in two places; False again, before the start and in another epoch."""
    tracker = tracking(HERE)
    if split is not None:
        tracker.split(HERE, EPOCH, split)
    for offset in (4, 5):
        assert not tracker.done(HERE, EPOCH, offset)
        tracker.started(HERE, EPOCH, offset)
        assert not tracker.done(HERE, EPOCH + 1, offset)
        assert tracker.done(HERE, EPOCH, offset)
        assert not tracker.done(HERE, EPOCH, offset)


def test_what_was_committed_is_not_offered_again():
    """Only progress is committable, even if an older commit is reported late."""
    tracker = tracking(HERE)
    tracker.started(HERE, EPOCH, 0)
    tracker.done(HERE, EPOCH, 0)
    tracker.committed({HERE: 1})
    assert tracker.committable() == {}
    tracker.committed({HERE: 0})
    assert tracker.committable() == {}


def test_a_record_of_a_partition_taken_away_is_not_worked_on():
    """Starting tells whether the record is still ours; finishing one that is not changes nothing."""
    tracker = tracking(HERE, THERE)
    assert tracker.started(HERE, EPOCH, 0)
    tracker.revoke([HERE])
    assert not tracker.started(HERE, EPOCH, 1)
    tracker.done(HERE, EPOCH, 0)
    tracker.committed({HERE: 9})
    assert (tracker.committable(), tracker.in_flight()) == ({}, 0)


def test_a_partition_that_comes_back_begins_anew():
    """Work finished from before the revocation does not count for records read again."""
    tracker = tracking(HERE)
    tracker.started(HERE, EPOCH, 0)
    tracker.revoke([HERE])
    tracker.assign({HERE: 2})
    assert not tracker.started(HERE, EPOCH, 7)
    for offset in (0, 1):
        assert tracker.started(HERE, 2, offset)
    tracker.done(HERE, 2, 1)
    tracker.done(HERE, EPOCH, 0)
    assert (tracker.committable(), tracker.in_flight()) == ({}, 1)
    tracker.done(HERE, 2, 0)
    assert tracker.committable() == {HERE: 2}


def test_records_read_again_count_once():
    """After a seek back, finished records are no longer in flight and those in flight are not doubled."""
    tracker = tracking(HERE)
    for offset in (0, 1, 0, 1):
        tracker.started(HERE, EPOCH, offset)
    assert tracker.in_flight([HERE, THERE]) == 2
    tracker.done(HERE, EPOCH, 0)
    tracker.done(HERE, EPOCH, 0)
    tracker.started(HERE, EPOCH, 0)
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
            tracker.started(HERE, EPOCH, started[-1])
        else:
            offset = data.draw(st.sampled_from(unfinished))
            finished.add(offset)
            tracker.done(HERE, EPOCH, offset)
        run = [offset for n, offset in enumerate(offsets) if set(offsets[: n + 1]) <= finished]
        assert tracker.committable() == ({HERE: run[-1] + 1} if run else {})
        assert tracker.in_flight() == len(started) - len(finished)


def test_what_lies_behind_a_split_waits_for_what_lies_before_it():
    """Fresh records may finish first; they count once the last old one has been read and is finished."""
    tracker = tracking(HERE)
    tracker.split(HERE, EPOCH, 10)
    for offset in (10, 4, 11):
        tracker.started(HERE, EPOCH, offset)
    tracker.done(HERE, EPOCH, 10)
    assert tracker.committable() == {}
    tracker.done(HERE, EPOCH, 4)
    assert tracker.committable() == {HERE: 5}
    tracker.earlier_read(HERE, EPOCH)
    assert tracker.committable() == {HERE: 11}
    tracker.done(HERE, EPOCH, 11)
    assert (tracker.committable(), tracker.in_flight()) == ({HERE: 12}, 0)


def test_a_split_counts_only_for_partitions_that_are_held():
    """Splitting a revoked partition has no effect."""
    tracker = tracking(HERE)
    tracker.split(THERE, EPOCH, 5)
    tracker.earlier_read(THERE, EPOCH)
    tracker.earlier_read(HERE, EPOCH)
    assert tracker.committable() == {}


class PlainSplit:
    """Reference for a split partition, kept in sets: slow but obvious."""

    def __init__(self, split):
        self.split, self.started, self.finished, self.earlier_is_read = split, set(), set(), False

    def next_offset(self):
        """After the last finished record that no unfinished or unread one precedes; -1 if there is none."""
        earlier = sorted(offset for offset in self.started if offset < self.split)
        if not self.earlier_is_read or not self.finished >= set(earlier):
            return self._behind_run(earlier, -1)
        return self._behind_run(sorted(self.started - set(earlier)), self.split)

    def _behind_run(self, offsets, behind):
        for offset in offsets:
            if offset not in self.finished:
                break
            behind = offset + 1
        return behind


@settings(max_examples=300)
@given(split=st.integers(0, 20), data=st.data())
def test_a_split_partition_counts_as_the_plain_rule_says(split, data):
    """Whatever the gaps and the order in which two places start, repeat and finish records: what may be committed, and
    what is in flight, is what the plain rule says; what was committed is not offered again.
    """
    tracker, plain, committed = tracking(HERE), PlainSplit(split), -1
    tracker.split(HERE, EPOCH, split)
    for _ in range(data.draw(st.integers(1, 40))):
        move = data.draw(st.sampled_from(["earlier", "later", "again", "finish", "strange", "read", "commit"]))
        known = sorted(plain.started)
        if move in ("earlier", "later"):
            place = [offset for offset in known if (offset < split) == (move == "earlier")]
            first = max(place, default=-1 if move == "earlier" else split - 1) + 1
            offset = data.draw(st.integers(first, first + 2))
            if move == "earlier" and (offset >= split or plain.earlier_is_read):
                continue
            plain.started.add(offset)
            assert tracker.started(HERE, EPOCH, offset)
        elif move == "again" and known:
            assert tracker.started(HERE, EPOCH, data.draw(st.sampled_from(known)))
        elif move == "finish" and known:
            offset = data.draw(st.sampled_from(known))
            plain.finished.add(offset)
            tracker.done(HERE, EPOCH, offset)
        elif move == "strange":
            tracker.done(HERE, EPOCH, data.draw(st.integers(0, 50).filter(lambda offset: offset not in plain.started)))
        elif move == "read":
            plain.earlier_is_read = True
            tracker.earlier_read(HERE, EPOCH)
        elif move == "commit" and HERE in tracker.committable():
            committed = tracker.committable()[HERE]
            tracker.committed({HERE: committed, THERE: 99})
        next_offset = plain.next_offset()
        assert tracker.committable() == ({HERE: next_offset} if next_offset > committed else {})
        assert tracker.in_flight() == tracker.in_flight([HERE, THERE]) == len(plain.started - plain.finished)
