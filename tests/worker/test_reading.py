"""Reading requests: bounded memory at any backlog."""

from __future__ import annotations

from runtime.records import TopicPartition
from worker.reading import apply_backpressure

FIRST, SECOND = TopicPartition("t", 0), TopicPartition("t", 1)


class Partitions:
    """A source and a delivery, by hand."""

    def __init__(self):
        self.counts = {FIRST: 0, SECOND: 0}
        self.resting = set()

    def assignment(self):
        return frozenset(self.counts)

    def paused(self):
        return frozenset(self.resting)

    def pause(self, partitions=None):
        self.resting |= set(partitions)

    def resume(self, partitions=None):
        self.resting -= set(partitions)

    def in_flight(self, partitions=None):
        return sum(self.counts[partition] for partition in partitions or self.counts)


def test_a_full_partition_is_paused_and_the_other_goes_on():
    """Each has its share; a backlog in one does not hold up the other."""
    both = Partitions()
    both.counts = {FIRST: 50, SECOND: 10}

    assert apply_backpressure(both, both, max_in_flight=100) == 1
    assert both.resting == {FIRST}


def test_it_goes_on_at_half_its_share():
    """Not at the first answer, which would pause and resume at every poll."""
    both = Partitions()
    both.resting = {FIRST}
    both.counts[FIRST] = 30
    assert apply_backpressure(both, both, max_in_flight=100) == 1

    both.counts[FIRST] = 25
    assert apply_backpressure(both, both, max_in_flight=100) == 0
    assert both.resting == set()


def test_without_partitions_there_is_nothing_to_apply_backpressure():
    """In mid-rebalance, for example."""
    both = Partitions()
    both.counts = {}

    assert apply_backpressure(both, both, max_in_flight=100) == 0
