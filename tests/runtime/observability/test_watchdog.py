"""The watchdog."""

from __future__ import annotations

import pytest

from runtime.clock import ManualClock
from runtime.errors import BrokerUnreachable, Stalled
from runtime.observability.readiness import Readiness
from runtime.observability.telemetry import Metrics
from runtime.observability.watchdog import ProgressWatchdog, Reading, watch_progress
from runtime.records import TopicPartition
from runtime.settings import TelemetrySettings

HERE = TopicPartition("t", 0)


@pytest.fixture
def clock():
    """Time that the test moves."""
    return ManualClock()


def test_lag_without_progress_grows_old(clock):
    """A partition counts as stalled for as long as records wait and its position does not move."""
    watchdog = ProgressWatchdog(clock)
    for _ in range(4):
        watchdog.observe({HERE: Reading(position=5, end=9)})
        clock.advance(10)
    assert watchdog.stalled_s() == {HERE: 40}


@pytest.mark.parametrize("later", [Reading(6, 9), Reading(5, 5)], ids=["moved", "nothing to read"])
def test_progress_or_nothing_to_read_begins_anew(clock, later):
    """Moving on, or having nothing to read, is no stall."""
    watchdog = ProgressWatchdog(clock)
    watchdog.observe({HERE: Reading(5, 9 if later.position == 6 else 5)})
    clock.advance(100)
    watchdog.observe({HERE: later})
    assert watchdog.stalled_s() == {HERE: 0}


def test_a_partition_paused_by_us_is_not_stalled(clock):
    """A partition paused by backpressure is not stalled."""
    watchdog = ProgressWatchdog(clock)
    watchdog.observe({HERE: Reading(5, 9)})
    clock.advance(100)
    watchdog.observe({HERE: Reading(5, 9)}, exempt=frozenset([HERE]))
    assert watchdog.stalled_s() == {}


class Reader:
    """A reader without a broker."""

    def __init__(self, clock, position=5, end=9, error=None):
        self._clock, self._position, self._end, self._error = clock, position, end, error
        self.asked = 0

    async def end_offsets(self):
        """Where the topic ends; each question takes ten seconds."""
        self.asked += 1
        self._clock.advance(10)
        if self._error is not None and self.asked > 1:
            raise self._error
        return {HERE: self._end}

    async def positions(self):
        """Where reading stands."""
        return {HERE: self._position}

    def paused(self):
        """Nothing is paused."""
        return frozenset()

    def backlog_lag(self):
        """Three records are still in the backlog."""
        return {HERE: 3}


SETTINGS = TelemetrySettings(stall_not_ready_s=15, stall_exit_s=35)


@pytest.mark.parametrize("error", [None, BrokerUnreachable("silence")], ids=["stuck", "silent broker"])
async def test_a_stall_first_takes_readiness_then_ends_the_program(clock, error):
    """A stuck consumer, or a broker that does not answer, ends in an error that says where."""
    readiness, metrics = Readiness(), Metrics("test")
    reader = Reader(clock, error=error)
    with pytest.raises(Stalled, match=r"t\[0\]"):
        await watch_progress(reader, clock, SETTINGS, readiness, metrics, interval_s=0)
    assert "t[0]" in readiness.reasons()["progress"]
    assert metrics.value("exitstream_test_consumer_lag_records", topic="t", partition=0) == 4 + 3
