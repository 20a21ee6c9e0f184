"""Which waiting requests can still be answered by a head in time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.budget.admission import AdmissionEstimate, admissible


def test_admission_keeps_what_can_reach_the_first_head():
    """In the order of service: each takes its time, and those who cannot be in time take none."""
    waiting = [
        AdmissionEstimate(deadline_s=0.10, first_head_s=0.04, least_work_s=0.05),
        AdmissionEstimate(deadline_s=0.10, first_head_s=0.04, least_work_s=0.05),
        AdmissionEstimate(deadline_s=0.11, first_head_s=0.04, least_work_s=0.05),
        AdmissionEstimate(deadline_s=0.20, first_head_s=0.04, least_work_s=0.05),
        AdmissionEstimate(deadline_s=-9.0, first_head_s=0.04, least_work_s=0.05, may_be_late=True),
    ]

    assert admissible(0.0, 0.0, waiting).tolist() == [True, True, False, True, True]
    assert admissible(0.0, 0.08, waiting).tolist() == [False, False, False, True, True]
    assert admissible(0.03, 0.0, waiting).tolist() == [True, False, False, True, True]


@settings(max_examples=60, deadline=None)
@given(
    waits=st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 0.1)), max_size=20),
    busy_s=st.floats(0, 0.5),
)
def test_admitted_requests_reach_the_first_head_in_time(waits, busy_s):
    """Served in order at their least work, nobody admitted passes its deadline before its first head."""
    waiting = [AdmissionEstimate(deadline, work / 2, work) for deadline, work in sorted(waits)]
    kept = admissible(0.0, busy_s, waiting)

    at_s = busy_s
    for estimate, keep in zip(waiting, kept, strict=True):
        if keep:
            assert at_s + estimate.first_head_s <= estimate.deadline_s
            at_s += estimate.least_work_s
        else:
            assert at_s + estimate.first_head_s > estimate.deadline_s


def test_a_first_head_exactly_at_the_deadline_is_in_time():
    """Only one that would answer later is turned away."""
    waiting = [AdmissionEstimate(deadline_s=1.0, first_head_s=0.25, least_work_s=0.5)]

    kept = admissible(0.5, 0.25, waiting)

    assert kept.tolist() == [True]
    assert kept.dtype == np.bool_
    assert admissible(0.5, 0.375, waiting).tolist() == [False]
