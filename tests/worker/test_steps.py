"""Work in steps, at once or between rounds of serving."""

from __future__ import annotations

import asyncio

import pytest

from runtime.clock import ManualClock
from runtime.process.lifecycle import owned_tasks
from worker.compute import ComputeThread
from worker.steps import between_rounds, to_its_end


def steps(clock, log=None):
    """Two steps of 1 and 2 seconds, and a result."""
    for number in (1, 2):
        clock.advance(number)
        if log is not None:
            log.append("step")
        yield f"step {number}"
    return "result"


def test_all_at_once():
    """The result, whatever the steps told."""
    assert to_its_end(steps(ManualClock())) == "result"


async def test_requests_are_served_between_two_steps():
    """Behind each step the thread does at least one round of its own work; what each step took is told."""
    clock, log = ManualClock(), []
    async with owned_tasks() as spawn:
        thread = ComputeThread()
        thread.work = lambda: log.append("round") or False
        spawn(thread.run(), "compute")
        result, spent = await asyncio.wait_for(between_rounds(thread, steps(clock, log), clock), 30)

    assert result == "result"
    assert spent == [("step 1", 1.0), ("step 2", 2.0)]
    places = [place for place, entry in enumerate(log) if entry == "step"]
    assert "round" in log[places[0] : places[1]]


async def test_an_error_is_the_askers():
    """It comes back to who asked, and the thread goes on."""

    def broken():
        yield "first"
        raise ValueError("no")

    async with owned_tasks() as spawn:
        thread = ComputeThread()
        spawn(thread.run(), "compute")
        with pytest.raises(ValueError, match="no"):
            await between_rounds(thread, broken(), ManualClock())
        assert await thread.call(lambda: 1) == 1
