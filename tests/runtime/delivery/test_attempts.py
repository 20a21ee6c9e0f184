"""The record that kills the process is found in three deaths, and no other is condemned for it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.delivery.attempts import GROUP_RECORDS, MOST_GUARDED, Handling, Note, PartitionAttempts

offset_sets = st.sets(st.integers(0, 2**63 - 1), max_size=GROUP_RECORDS).map(lambda found: tuple(sorted(found)))


@given(group=offset_sets, alone=offset_sets)
def test_a_note_is_read_as_it_was_written_and_fits(group, alone):
    """In at most the 4,096 bytes that brokers take by default, even with the largest offsets."""
    note = Note(group, alone[:1])
    assert Note.read(note.text()) == note
    assert len(note.text()) < 4_096


@pytest.mark.parametrize("text", ["", "mine", "working group=1 alone=x", "working group=1", '{"group":[]}'])
def test_metadata_that_is_no_note_of_ours_is_none(text):
    """Another program may have committed; that is no unclean end."""
    assert Note.read(text) is None


def test_after_an_orderly_end_all_are_begun_together():
    """The usual case costs nothing."""
    attempts = PartitionAttempts(None, 5, 100)
    assert {attempts.handling(offset) for offset in range(5, 120)} == {Handling.TOGETHER}
    assert attempts.note == Note()


def test_after_an_unclean_end_what_may_have_been_at_work_is_begun_in_groups():
    """Up to the end of the partition as of then, and no more than could have been at work."""
    attempts = PartitionAttempts(Note(), 5, 100)
    assert [attempts.handling(offset) for offset in (5, 99, 100)] == [
        Handling.IN_GROUP,
        Handling.IN_GROUP,
        Handling.TOGETHER,
    ]
    attempts.begin_group(range(5, 5 + GROUP_RECORDS))
    assert attempts.note.group == tuple(range(5, 5 + GROUP_RECORDS))
    attempts.done(5)
    assert attempts.note.group[0] == 6

    many = PartitionAttempts(Note(), 0, 10**6)
    many.begin_group(range(MOST_GUARDED))
    assert many.handling(MOST_GUARDED) is Handling.TOGETHER


def test_a_group_that_ended_a_process_is_begun_one_by_one_and_the_last_alone_not_at_all():
    """Those committed meanwhile are no suspects; the note keeps the verdict until it is carried out."""
    attempts = PartitionAttempts(Note((4, 5, 6, 8), ()), 5, 100)
    assert [attempts.handling(offset) for offset in (5, 6, 7, 8, 9)] == [
        Handling.ALONE,
        Handling.ALONE,
        Handling.TOGETHER,
        Handling.ALONE,
        Handling.TOGETHER,
    ]
    attempts.begin_alone(5)
    attempts.done(5)
    attempts.begin_alone(6)
    assert attempts.note == Note((8,), (6,))

    after = PartitionAttempts(attempts.note, 6, 100)
    assert after.handling(6) is Handling.CONDEMNED
    assert after.handling(8) is Handling.ALONE
    assert after.note == Note((8,), (6,))
    after.done(6)
    assert after.note == Note((8,), ())


class Log:
    """One partition, the note beside its committed offset, and what became of its records."""

    def __init__(self, length, killers):
        self.length = length
        self.killers = killers
        self.committed = 0
        self.note = None
        self.answered = set()
        self.condemned = set()

    def live(self, chance, kill_after=None):
        """One process from its start to its death or to the end of the log; whether it died."""
        attempts = PartitionAttempts(self.note, self.committed, self.length)
        at_work, done, waiting = set(), set(), list(range(self.committed, self.length))
        self.note = attempts.note
        steps = 0
        while waiting or at_work:
            steps += 1
            if steps == kill_after:
                return True
            batch = self._next(attempts, waiting) if self._may_begin(attempts, waiting, at_work) else []
            at_work.update(batch)
            if at_work & self.killers and chance.random() < 0.5:
                return True
            for offset in chance.sample(sorted(at_work - self.killers), min(3, len(at_work - self.killers))):
                at_work.discard(offset)
                done.add(offset)
                self.answered.add(offset)
                attempts.done(offset)
            done |= self.condemned
            while self.committed in done:
                self.committed += 1
            if chance.random() < 0.3:  # the periodic commit
                self.note = attempts.note
        self.note = None
        return False

    def _may_begin(self, attempts, waiting, at_work):
        if not waiting:
            return False
        return not at_work or (self.alone is None and attempts.handling(waiting[0]) is Handling.TOGETHER)

    alone = None

    def _next(self, attempts, waiting):
        kind = attempts.handling(waiting[0])
        self.alone = None
        if kind is Handling.CONDEMNED:
            self.condemned.add(waiting[0])
            attempts.done(waiting.pop(0))
            return []
        count = {Handling.ALONE: 1, Handling.IN_GROUP: GROUP_RECORDS, Handling.TOGETHER: 10}[kind]
        batch = []
        while waiting and len(batch) < count and attempts.handling(waiting[0]) is kind:
            batch.append(waiting.pop(0))
        if kind is Handling.ALONE:
            attempts.begin_alone(batch[0])
            self.alone = batch[0]
        elif kind is Handling.IN_GROUP:
            attempts.begin_group(batch)
        if kind is not Handling.TOGETHER:
            self.note = attempts.note  # before they begin
        return batch


@settings(deadline=None)
@given(length=st.integers(1, 300), data=st.data(), seed=st.integers(0, 1000))
def test_every_record_that_kills_is_condemned_and_every_other_is_answered(length, data, seed):
    """Whatever the order in which records finish: at most three deaths for each killer."""
    killers = data.draw(st.sets(st.integers(0, length - 1), max_size=3))
    log, chance, deaths = Log(length, killers), random.Random(seed), 0
    while log.live(chance):
        deaths += 1
        assert deaths <= 3 * len(killers)

    assert log.condemned == killers
    assert log.answered == set(range(length)) - killers


@settings(deadline=None)
@given(length=st.integers(1, 300), kills=st.lists(st.integers(1, 40), max_size=8), seed=st.integers(0, 1000))
def test_a_process_that_is_killed_twice_at_large_condemns_nothing(length, kills, seed):
    """Kills from outside lose nothing; a record is given up only if one of them met it alone."""
    log, chance = Log(length, set()), random.Random(seed)
    for kill_after in kills:
        log.live(chance, kill_after)
    log.live(chance)

    assert log.answered | log.condemned == set(range(length))
    if len(kills) <= 2:
        assert not log.condemned
