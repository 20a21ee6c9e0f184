"""Answered requests between two threads."""

from __future__ import annotations

from types import SimpleNamespace

from worker.compute import ComputeThread
from worker.handover import AnsweredJobs


def _job(name, *, late=False):
    return SimpleNamespace(name=name, deadline=SimpleNamespace(late_at_intake=late))


async def test_those_that_came_late_are_handed_out_after_all_others():
    """Also if they were answered first; each kind in its order, at most so many at a time, and each once."""
    answered = AnsweredJobs(ComputeThread())
    answered.put([_job("old", late=True), _job("a"), _job("b")])
    answered.put([_job("c"), _job("older", late=True)])

    portions = [[job.name for job in answered.pop(2)] for _ in range(4)]

    assert portions == [["a", "b"], ["c"], ["old", "older"], []]
