"""Who runs together, who must leave, and who leaves at a head, with plain numbers."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.messages import QualityFloor
from worker.engine.part import Part
from worker.engine.scheduler import leaving, next_batch, out_of_time
from worker.engine.scoring_job import ScoringJob

CONFIDENCE = np.array([0.2, 0.5, 0.9])


def part(ticket: int, deadline_s: float, tokens: int = 10, depth: int = 0, floor: QualityFloor = "graph") -> Part:
    """A part whose place in the queue is its deadline."""
    one = Part(ScoringJob(1, deadline_s=deadline_s, quality_floor=floor), 0, 1, deadline_s, ticket)
    one.depth, one.suffix_tokens = depth, tokens
    return one


def free(_stage: int, _tokens: int) -> float:
    """Stages that take no time."""
    return 0.0


def a_second_per_token(_stage: int, tokens: int) -> float:
    """Stages that take long."""
    return float(tokens)


def tickets(batch: list[Part]) -> list[int]:
    """Who is in a batch."""
    return [member.urgency[2] for member in batch]


def test_the_most_urgent_says_which_stage_runs():
    """The earliest deadline runs, with those that stand at its depth; others wait."""
    waiting = [part(0, 9.0), part(1, 5.0, depth=1), part(2, 7.0, depth=1), part(3, 6.0)]
    assert tickets(next_batch(waiting, 0.0, 100, free)) == [1, 2]


def test_a_batch_is_bounded_in_tokens_but_filled():
    """A part that does not fit is passed over for a smaller one behind; one that just fits is taken."""
    waiting = [part(0, 1.0, 60), part(1, 2.0, 60), part(2, 3.0, 40)]
    assert tickets(next_batch(waiting, 0.0, 100, free)) == [0, 2]


def test_one_part_runs_however_large():
    """A part beyond the bound runs by itself."""
    assert tickets(next_batch([part(0, 1.0, 500), part(1, 2.0, 1)], 0.0, 100, free)) == [0]


def test_company_must_not_make_anyone_late():
    """A batch stops growing where its end would pass a member's deadline; ending exactly at it is in time."""
    waiting = [part(0, 20.0), part(1, 30.0), part(2, 35.0)]
    assert tickets(next_batch(waiting, 0.0, 100, a_second_per_token)) == [0, 1]
    assert tickets(next_batch(waiting, 0.1, 100, a_second_per_token)) == [0]


def test_a_later_members_deadline_counts_as_well():
    """The earliest deadline of all members bounds the batch, whatever their order."""
    patient, strict = part(0, 5.0), part(1, 50.0)
    patient.job.deadline_s, strict.job.deadline_s = 100.0, 15.0
    assert tickets(next_batch([patient, strict], 0.0, 100, a_second_per_token)) == [0]


def test_the_late_run_together():
    """Where all are late anyway, only throughput counts."""
    waiting = [part(ticket, 1.0, floor="final_head") for ticket in range(4)]
    assert len(next_batch(waiting, 50.0, 100, a_second_per_token)) == 4


def test_no_parts_make_no_batch():
    """An idle scheduler picks nobody."""
    assert next_batch([], 0.0, 100, free) == []


def test_who_cannot_finish_another_stage_leaves():
    """Those whose next stage would end after their deadline are out of time, at any depth; ending at it is in time."""
    waiting = [part(0, 9.9), part(1, 10.0), part(2, 9.9, depth=2)]
    assert tickets(out_of_time(waiting, 0.0, a_second_per_token)) == [0, 2]


def test_a_quality_floor_keeps_the_late_in():
    """With a floor a request stays until it has the head it asks for, rather late."""
    waiting = [
        part(0, 1.0, floor="first_head"),
        part(1, 1.0, depth=1, floor="first_head"),
        part(2, 1.0, depth=2, floor="final_head"),
    ]
    assert tickets(out_of_time(waiting, 5.0, free)) == [1]


@pytest.mark.parametrize(("threshold", "out"), [(0.5, [0, 1, 1]), (0.0, [1, 1, 1]), (1.0, [0, 0, 0])])
def test_confidence_at_or_above_the_threshold_leaves(threshold, out):
    """Reaching the threshold is enough; a higher threshold keeps more in."""
    assert leaving(CONFIDENCE, threshold, is_final=False, floor="graph").tolist() == [bool(one) for one in out]


def test_everyone_leaves_at_the_final_head():
    """Behind the final head there is nothing to wait for."""
    assert leaving(CONFIDENCE, 2.0, is_final=True, floor="final_head").tolist() == [True] * 3


def test_a_final_head_floor_forbids_early_answers():
    """Who asks for the final head gets it, however confident an earlier one is."""
    assert leaving(CONFIDENCE, 0.0, is_final=False, floor="final_head").tolist() == [False] * 3
