"""What a start says of its stages."""

from __future__ import annotations

import time

import pytest
from structlog.testing import capture_logs

from runtime.clock import ManualClock
from runtime.observability.stages import STAGE_DONE, note_stage, process_age_s, stage


def test_a_stage_tells_its_seconds_and_the_memory_behind_it():
    """As the given clock measures them."""
    clock = ManualClock()
    with capture_logs() as lines, stage("bundle", clock):
        clock.advance(1.25)
    [line] = lines
    assert (line["event"], line["stage"], line["seconds"]) == (STAGE_DONE, "bundle", 1.25)
    assert line["resident_mb"] > 10


def test_a_stage_that_fails_is_not_told_as_done():
    """The error says what happened."""
    with capture_logs() as lines, pytest.raises(ValueError, match="broken"), stage("bundle", ManualClock()):
        raise ValueError("broken")
    assert not lines


def test_a_stage_that_was_measured_elsewhere_is_told_alike():
    """Such as what comes before the first line of the program."""
    with capture_logs() as lines:
        note_stage("program", 0.5)
    assert lines[0]["stage"] == "program"


def test_a_process_knows_its_age():
    """It is more than the time since this module was imported, and grows as time goes by."""
    age_s, now_s = process_age_s(), time.monotonic()
    assert age_s > 0
    assert process_age_s() - age_s == pytest.approx(time.monotonic() - now_s, abs=0.05)
