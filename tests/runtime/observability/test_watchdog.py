"""The watchdog."""

from __future__ import annotations

import pytest

from runtime.clock import ManualClock
from runtime.errors import BrokerUnreachable, Stalled
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness
from runtime.observability.telemetry import Metrics
from runtime.observability.watchdog import Reading, StallTimer, Watchdog
from runtime.records import TopicPartition
from runtime.settings import TelemetrySettings

HERE = TopicPartition("t", 0)


@pytest.fixture
def clock():
    """Time that the test moves."""
    return ManualClock()


def test_lag_without_progress_grows_old(clock):
    """A partition counts as stalled for as long as records wait and its position does not move."""
    watchdog = StallTimer(clock)
    for _ in range(4):
        watchdog.observe({HERE: Reading(position=5, end=9)})
        clock.advance(10)
    assert watchdog.stalled_s() == {HERE: 40}


@pytest.mark.parametrize("later", [Reading(6, 9), Reading(5, 5)], ids=["moved", "nothing to read"])
def test_progress_or_nothing_to_read_begins_anew(clock, later):
    """Moving on, or having nothing to read, is no stall."""
    watchdog = StallTimer(clock)
    watchdog.observe({HERE: Reading(5, 9 if later.position == 6 else 5)})
    clock.advance(100)
    watchdog.observe({HERE: later})
    assert watchdog.stalled_s() == {HERE: 0}


def test_a_partition_paused_by_us_is_not_stalled(clock):
    """A partition paused by backpressure is not stalled."""
    watchdog = StallTimer(clock)
    watchdog.observe({HERE: Reading(5, 9)})
    clock.advance(100)
    watchdog.observe({HERE: Reading(5, 9)}, exempt=frozenset([HERE]))
    assert watchdog.stalled_s() == {}


def test_after_an_outage_the_time_starts_over(clock):
    """What could not move because the broker did not answer is not held against a partition."""
    timer = StallTimer(clock)
    timer.observe({HERE: Reading(5, 9)})
    clock.advance(100)
    timer.forget()
    timer.observe({HERE: Reading(5, 9)})
    clock.advance(10)
    timer.observe({HERE: Reading(5, 9)})
    assert timer.stalled_s() == {HERE: 10}


class Reader:
    """A reader without a broker; each question takes ten seconds.

    Args:
        clock: moved by each question.
        silent: the questions, counted from 1, that get no answer.
        ends_at: the question at which the test ends.
    """

    def __init__(self, clock, silent=(), ends_at=None):
        self._clock, self._silent, self._ends_at = clock, silent, ends_at
        self.asked = 0

    async def end_offsets(self):
        """Where the topic ends."""
        self.asked += 1
        self._clock.advance(10)
        if self.asked == self._ends_at:
            raise EndOfTest
        if self.asked in self._silent:
            raise BrokerUnreachable("silence")
        return {HERE: 9}

    async def positions(self):
        """Where reading stands."""
        return {HERE: 5}

    def paused(self):
        """Nothing is paused."""
        return frozenset()

    def backlog_lag(self):
        """Three records are still in the backlog."""
        return {HERE: 3}


class EndOfTest(Exception):
    """Ends the watch."""


SETTINGS = TelemetrySettings(stall_not_ready_s=15, stall_exit_s=35)


class Watched:
    """A program with a watchdog."""

    def __init__(self, clock):
        self.readiness, self.metrics = Readiness(), Metrics("test")
        outages = Outages(self.readiness, clock)
        self.dog = Watchdog(SETTINGS, self.readiness, outages, self.metrics, clock, interval_s=0)


async def test_a_stall_first_takes_readiness_then_ends_the_program(clock):
    """A consumer that is stuck while the broker answers ends in an error that says where."""
    program = Watched(clock)
    with pytest.raises(Stalled, match=r"t\[0\]"):
        await program.dog.watch(Reader(clock))
    assert "t[0]" in program.readiness.reasons()["progress"]
    assert program.metrics.value("exitstream_test_consumer_lag_records", topic="t", partition=0) == 4 + 3


async def test_a_silent_broker_never_ends_the_program(clock):
    """However long it is silent: the program is not ready, with the reason."""
    program = Watched(clock)
    reader = Reader(clock, silent=range(2, 1_000), ends_at=1_000)
    with pytest.raises(EndOfTest):
        await program.dog.watch(reader)
    assert program.readiness.reasons() == {"broker": "silence"}


async def test_a_broker_that_is_back_ends_the_outage_and_not_the_program(clock):
    """The lag that the outage left is no stall, and readiness returns with the first answer."""
    program = Watched(clock)
    reader = Reader(clock, silent=range(2, 10), ends_at=11)
    with pytest.raises(EndOfTest):
        await program.dog.watch(reader)
    assert program.readiness.is_ready


async def test_each_reader_has_a_condition_of_its_own(clock):
    """The stall of one is not covered up by the progress of another, and only one of them shows the lag."""
    program = Watched(clock)
    with pytest.raises(Stalled):
        await program.dog.watch(Reader(clock), "state progress", shows_lag=False)
    assert set(program.readiness.reasons()) == {"state progress"}
    assert program.metrics.value("exitstream_test_consumer_lag_records", topic="t", partition=0) is None
