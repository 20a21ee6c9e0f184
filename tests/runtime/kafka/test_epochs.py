"""Assignments have numbers, and remember where they began."""

from runtime.kafka.epochs import Epochs
from runtime.records import TopicPartition

HERE, THERE = TopicPartition("in", 0), TopicPartition("in", 1)


def test_an_epoch_stands_until_another_begins_or_the_partition_goes():
    """Numbers grow; a partition that is not assigned has none."""
    epochs = Epochs()
    first = epochs.begin([HERE, THERE])
    assert epochs.stands(HERE, first)
    second = epochs.begin([HERE])
    assert second[HERE] > first[HERE]
    assert (epochs.stands(HERE, first), epochs.stands(HERE, second), epochs.stands(THERE, first)) == (False, True, True)
    epochs.end([HERE])
    assert (epochs.of(HERE), epochs.stands(HERE, second), set(epochs.present())) == (0, False, {THERE})


def test_a_first_offset_is_that_of_the_present_epoch_alone():
    """It is forgotten when another begins, and at the end."""
    epochs = Epochs()
    for over in (epochs.begin, epochs.end):
        epochs.begin([HERE, THERE])
        for partition in (HERE, THERE):
            epochs.note_first_offset(partition, 7)
        over([HERE])
        assert (epochs.first_offset(HERE), epochs.first_offset(THERE)) == (0, 7)
