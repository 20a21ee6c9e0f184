"""A long job tells how far it is, also where the output is a file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from runtime.clock import ManualClock
from training.progress import Bars, Lines, reporter_for


def test_lines_come_every_ten_seconds_with_the_time_that_is_left():
    """A step of a hundred units, one a second; the note is the latest one given."""
    clock, lines = ManualClock(), []
    with Lines(lines.append, clock).step("heads", 100) as advance:
        for unit in range(100):
            clock.advance(1.0)
            advance(note=f"loss {unit}" if unit % 5 == 0 else "")
    assert lines[0] == "heads: 100 to do"
    assert lines[1] == "heads: 10 of 100 (10%), 90 s left, loss 5"
    assert len(lines) == 12
    assert lines[-1] == "heads: done in 100 s, loss 95"


def test_bars_may_stand_within_one_another():
    """A validation is a step of its own within the training; both bars reach their ends."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    bars = Bars(console)
    with bars.step("heads", 2) as outer:
        outer()
        with bars.step("validation", 3) as inner:
            inner(3)
        outer()
    drawn = console.file.getvalue()
    assert "2/2" in drawn
    assert "3/3" in drawn


def test_a_quick_step_is_two_lines():
    """Its beginning and its end; of an unknown number of units only what is done is told."""
    clock, lines = ManualClock(), []
    with Lines(lines.append, clock).step("graph") as advance:
        advance()
        clock.advance(11.0)
        advance(4)
    assert lines == ["graph: started", "graph: 5 done", "graph: done in 11 s"]


def test_the_first_units_promise_nothing():
    """What the very beginning took says nothing of the rest."""
    clock, lines = ManualClock(), []
    with Lines(lines.append, clock).step("examples", 18_720) as advance:
        clock.advance(30.0)
        advance(7)
    assert lines[1] == "examples: 7 of 18,720 (0%)"


def test_a_failed_step_is_not_told_to_be_done():
    """What was raised is raised, without a last line."""
    lines = []
    with pytest.raises(ZeroDivisionError), Lines(lines.append).step("graph", 3):
        1 / 0  # noqa: B018 - any error
    assert lines == ["graph: 3 to do"]


def test_the_kind_of_output_decides():
    """Bars on a terminal, lines that can be read at once in a file or a pipe."""
    assert isinstance(reporter_for(Console(force_terminal=True)), Bars)
    output = io.StringIO()
    reporter = reporter_for(Console(file=output))
    with reporter.step("graph", 2):
        assert output.getvalue() == "graph: 2 to do\n"
