"""What a record's headers say of its trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.observability.trace_context import is_sampled, trace_context

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
SAMPLED = ("traceparent", b"00-" + TRACE + b"-" + SPAN + b"-01")
UNSAMPLED = ("traceparent", b"00-" + TRACE + b"-" + SPAN + b"-00")


def test_a_record_without_a_trace_has_no_context():
    """Other headers say nothing of traces, and neither does a state without a parent."""
    assert trace_context((("content-type", b"application/json"), ("tracestate", b"a=1"))) == ()
    assert not is_sampled(())


def test_parent_and_state_are_told_parent_first():
    """Whatever their order among the record's headers."""
    state = ("tracestate", b"vendor=value")

    assert trace_context((state, ("other", b""), SAMPLED)) == (SAMPLED, state)


@pytest.mark.parametrize(("header", "sampled"), [(SAMPLED, True), (UNSAMPLED, False)])
def test_the_flag_tells_whether_the_sender_records_the_trace(header, sampled):
    """The last bit of the flags, as W3C has it."""
    assert is_sampled(trace_context((header,))) is sampled


def test_a_later_version_is_read_as_far_as_it_is_known():
    """It may append fields; the ones known here stay where they are."""
    later = ("traceparent", b"cc-" + TRACE + b"-" + SPAN + b"-01-what-comes")

    assert is_sampled(trace_context((later,)))


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"00-" + b"0" * 32 + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",
        b"ff-" + TRACE + b"-" + SPAN + b"-01",
        b"00-" + TRACE.upper() + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + SPAN + b"-0",
        b"00-" + TRACE + b"-" + SPAN + b"-011",
        b"00-" + TRACE + b"-" + SPAN + b"-01-" + b"x" * 300,
    ],
)
def test_what_is_no_valid_parent_is_as_good_as_none(value):
    """Null, empty, of zeros, of a forbidden version, of the wrong length: nothing of it is passed on."""
    assert trace_context((("traceparent", value),)) == ()


def test_a_state_that_nobody_need_carry_is_left_out():
    """Longer than the 512 bytes of the standard, it would only make every later record longer."""
    assert trace_context((SAMPLED, ("tracestate", b"a=" + b"1" * 600))) == (SAMPLED,)


@given(st.binary(max_size=80))
def test_no_header_is_an_error(value):
    """Headers come from anywhere."""
    context = trace_context((("traceparent", value),))

    assert is_sampled(context) in {True, False}
