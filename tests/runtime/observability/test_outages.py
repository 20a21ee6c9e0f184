"""Outages are told once a minute and by the readiness, until every activity has succeeded again."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from runtime.clock import ManualClock
from runtime.errors import BrokerUnreachable
from runtime.observability.outages import CONDITION, Outages
from runtime.observability.readiness import Readiness

AWAY = BrokerUnreachable("committing: no answer in time")


@pytest.fixture
def clock():
    """Stands until it is moved."""
    return ManualClock()


@pytest.fixture
def readiness():
    """Ready but for an outage."""
    return Readiness()


@pytest.fixture
def outages(readiness, clock):
    """Nothing waits yet."""
    return Outages(readiness, clock)


def test_a_program_is_not_ready_until_every_activity_has_succeeded_again(outages, readiness):
    """Two activities fail; the first one's success is not enough."""
    outages.note("commits", AWAY)
    outages.note("states", AWAY)
    outages.over("commits")
    assert outages.is_out
    assert readiness.reasons() == {CONDITION: str(AWAY)}
    outages.over("states")
    assert not outages.is_out
    assert readiness.is_ready


def test_an_outage_is_logged_once_a_minute_and_at_its_end(outages, clock):
    """Two activities try every second for 150 seconds: three lines, each with the time so far; then one for the end."""
    with capture_logs() as lines:
        for _ in range(150):
            outages.note("commits", AWAY)
            outages.note("states", AWAY)
            clock.advance(1.0)
        outages.over("commits")
        outages.over("states")
        outages.over("states")
    assert [(line["event"], line.get("for_s", line.get("after_s"))) for line in lines] == [
        ("waiting for the broker", 0),
        ("waiting for the broker", 60),
        ("waiting for the broker", 120),
        ("the broker answers again", 150),
    ]


def test_the_next_outage_counts_from_its_own_beginning(outages, clock):
    """What was logged of the last one delays no line of the next."""
    outages.note("commits", AWAY)
    outages.over("commits")
    clock.advance(5.0)
    with capture_logs() as lines:
        outages.note("commits", AWAY)
    assert [line["for_s"] for line in lines] == [0]


def test_success_without_an_outage_says_nothing(outages):
    """The usual case is silent."""
    with capture_logs() as lines:
        outages.over("commits")
    assert lines == []
