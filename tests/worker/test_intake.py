"""Requests, budgets and deadlines from records."""

from __future__ import annotations

import pytest

from runtime.clock import ManualClock
from runtime.records import Record
from schemas.codec import MalformedRecord, encode
from schemas.messages import ImpressionRequest
from worker.intake import BUDGET_HEADER, Intake
from worker.settings import WorkerSettings


@pytest.fixture
def clock():
    """Simulated time."""
    return ManualClock()


@pytest.fixture
def intake(clock):
    """With the settings as they are."""
    return Intake(WorkerSettings(), clock)


def _request(clock, **changes):
    fields = {
        "request_id": "r",
        "user_id": "u",
        "candidate_item_ids": ["a"],
        "created_time_ms": clock.wall_ms(),
    }
    return ImpressionRequest(**fields | changes)


def _record(request, *headers):
    return Record("impression-requests", 0, 0, b"u", encode(request), headers)


def test_a_deadline_counts_from_the_created_time(intake, clock):
    """What was lost on the way is not given back."""
    request = _request(clock, created_time_ms=clock.wall_ms() - 50)

    deadline, budget_s = intake.deadline(request, _record(request))

    assert budget_s == 0.2
    assert deadline.at - clock.monotonic() == pytest.approx(0.15)


def test_a_request_is_decoded_as_it_was_sent(intake, clock):
    """Field by field."""
    request = _request(clock, budget_ms=5, quality_floor="first_head", context={"page": "home"})

    assert intake.decode(_record(request)) == request


@pytest.mark.parametrize("header", [b"", b"-5", b"1.5", b"soon", b"3600001"])
def test_a_header_that_holds_no_budget_is_refused(intake, clock, header):
    """With a reason that names it."""
    request = _request(clock)

    with pytest.raises(MalformedRecord, match="budget-ms"):
        intake.deadline(request, _record(request, (BUDGET_HEADER, header)))
