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


def test_late_alone_means_late_by_its_own_stage():
    """A part that ends late only with company, exactly in time by itself, is not late anyway."""
    waiting = [part(0, 20.0, tokens=10), part(1, 19.0, tokens=10)]
    assert tickets(next_batch(waiting, 10.0, 100, a_second_per_token)) == [1]
    assert tickets(next_batch(waiting, 10.5, 100, a_second_per_token)) == [1, 0]
    both_in_time = [part(0, 20.0, tokens=10), part(1, 20.0, tokens=10)]
    assert tickets(next_batch(both_in_time, 10.0, 100, a_second_per_token)) == [0]


def slow_second_stage(stage: int, tokens: int) -> float:
    """A second per token in the second stage, nothing in any other."""
    return float(tokens) if stage == 1 else 0.0


def test_what_a_batch_takes_is_asked_of_the_stage_that_it_runs():
    """Stages differ in what they take, for a batch, for those late anyway, and for those out of time."""
    for depth, together in ((0, [0, 1]), (1, [0])):
        waiting = [part(ticket, 15.0, depth=depth) for ticket in range(2)]
        assert tickets(next_batch(waiting, 0.0, 100, slow_second_stage)) == together
    late = [part(ticket, 5.0, depth=1) for ticket in range(2)]
    assert tickets(next_batch(late, 0.0, 100, slow_second_stage)) == [0, 1]
    assert tickets(out_of_time([part(0, 5.0), part(1, 5.0, depth=1)], 0.0, slow_second_stage)) == [1]


def test_one_that_would_be_late_in_company_does_not_keep_out_a_smaller_one():
    """Who is passed over for its size leaves room to those behind it."""
    waiting = [part(0, 20.0, tokens=10), part(1, 21.0, tokens=50), part(2, 22.0, tokens=10)]
    assert tickets(next_batch(waiting, 0.0, 100, a_second_per_token)) == [0, 2]


def test_a_deeper_part_does_not_keep_out_those_behind_it():
    """Parts at other depths are passed over."""
    waiting = [part(0, 1.0), part(1, 2.0, depth=1), part(2, 3.0)]
    assert tickets(next_batch(waiting, 0.0, 100, free)) == [0, 2]


def test_every_member_tightens_the_batchs_deadline():
    """A third part must not make the second late, though the first could wait."""
    waiting = [part(0, 5.0), part(1, 6.0), part(2, 7.0)]
    for one, deadline_s in zip(waiting, (100.0, 25.0, 100.0), strict=True):
        one.job.deadline_s = deadline_s
    assert tickets(next_batch(waiting, 0.0, 100, a_second_per_token)) == [0, 1]


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
