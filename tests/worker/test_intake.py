"""Requests, budgets and deadlines from records."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from runtime.clock import ManualClock
from runtime.foreign_keys import ForeignKeys
from runtime.records import Record
from schemas.codec import FORMAT_HEADER, VERSION_HEADER, MalformedRecord, encode
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

    assert intake.decode(_record(request)) == (request, "msgpack")


@pytest.mark.parametrize("header", [b"", b"-5", b"1.5", b"soon", b"3600001"])
def test_a_header_that_holds_no_budget_is_refused(intake, clock, header):
    """With a reason that names it."""
    request = _request(clock)

    with pytest.raises(MalformedRecord, match="budget-ms"):
        intake.deadline(request, _record(request, (BUDGET_HEADER, header)))


def test_requests_under_a_foreign_key_are_taken_counted_and_told_once(clock):
    """Keys by user are a recommendation; what comes otherwise is answered."""
    seen = []
    intake = Intake(WorkerSettings(), clock, ForeignKeys("requests", lambda: seen.append(1)))
    request = _request(clock)

    with capture_logs() as logs:
        for key in (b"u", None, b"r", b"\xff"):
            assert intake.decode(Record("impression-requests", 0, 0, key, encode(request)))[0] == request

    assert len(seen) == 3
    assert len(logs) == 1


def test_a_budget_may_be_a_whole_float(intake, clock):
    """As JavaScript and Spark write it; a fraction is refused with the reason."""
    value = encode(_request(clock, budget_ms=2000), "json")
    record = Record("impression-requests", 0, 0, b"u", value.replace(b"2000", b"2000.0"))

    assert intake.decode(record)[0].budget_ms == 2000
    with pytest.raises(MalformedRecord, match=r"got `float` - at `\$.budget_ms`"):
        intake.decode(Record("impression-requests", 0, 0, b"u", value.replace(b"2000", b"2000.5")))


@settings(max_examples=300, deadline=None)
@given(
    key=st.none() | st.binary(max_size=9),
    value=st.none() | st.binary(max_size=60) | st.just(encode(_request(ManualClock()))),
    headers=st.lists(
        st.tuples(
            st.sampled_from([FORMAT_HEADER, VERSION_HEADER, BUDGET_HEADER, "", "x"]),
            st.none() | st.binary(max_size=20) | st.text("0123456789-+.e_ ", max_size=20).map(str.encode),
        ),
        max_size=4,
    ),
    times=st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 253_402_300_799_999)),
)
def test_any_record_is_a_request_with_a_deadline_or_malformed(key, value, headers, times):
    """Whatever its bytes, key, headers and times, nothing but MalformedRecord leaves the intake."""
    clock = ManualClock()
    intake = Intake(WorkerSettings(), clock)
    timestamp_ms, created_time_ms = times
    for value_now in (value, encode(_request(clock, created_time_ms=created_time_ms))):
        record = Record("impression-requests", 0, 0, key, value_now, tuple(headers), timestamp_ms)
        try:
            deadline, budget_s = intake.deadline(intake.decode(record)[0], record)
        except MalformedRecord:
            continue
        assert 0 <= budget_s <= 3_600
        assert math.isfinite(deadline.at)
