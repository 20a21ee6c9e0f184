"""The split in time."""

from event_data.event_log import EventLog
from event_data.synthetic import SyntheticSize, synthetic_log


def test_the_parts_are_eight_one_and_one_tenth_in_order_of_time():
    """Train, validation and test follow each other and cover the log."""
    log = synthetic_log(SyntheticSize(sessions=100, shown=10))
    split = log.split()
    assert (split.train_end, split.validation_end, split.end) == (800, 900, 1000)


def test_an_empty_log_splits_into_nothing():
    """Every part is empty."""
    split = EventLog("empty", [], []).split()
    assert (split.train_end, split.validation_end, split.end) == (0, 0, 0)
