"""Spans: in whose trace they are, how many there are, where they go."""

from __future__ import annotations

import pytest
from span_recorder import SAMPLED, SPAN, TRACE, UNSAMPLED, SpanRecorder, header_of, parent_id, span_id, trace_id

from runtime.errors import MissingDependency, SettingsError
from runtime.observability.spans import exporting_processors

NOW_MS = 1_700_000_000_000.25


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Variables of the machine that runs the tests say nothing."""
    for name in ("SAMPLER", "SAMPLER_ARG", "EXPORTER"):
        monkeypatch.delenv(f"OTEL_TRACES_{name}", raising=False)
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        monkeypatch.delenv(name, raising=False)


def test_a_span_goes_on_with_the_trace_of_its_record():
    """Its parent is the sender's span; what comes of it carries its own."""
    recorder = SpanRecorder()
    span = recorder.tracer.start("work", (*SAMPLED, ("tracestate", b"vendor=1")), NOW_MS, {})
    headers = dict(span.headers)
    span.end(NOW_MS + 1)

    ended = recorder.span("work")
    assert (trace_id(ended), parent_id(ended)) == (TRACE, SPAN)
    assert headers["traceparent"].startswith(header_of(ended))
    assert int(headers["traceparent"][-2:], 16) & 1
    assert headers["tracestate"] == b"vendor=1"


def test_times_and_attributes_are_those_given():
    """To the microsecond, and steps inside lie inside."""
    recorder = SpanRecorder()
    span = recorder.tracer.start("work", SAMPLED, NOW_MS, {"first": 1})
    span.child("step", NOW_MS + 1, NOW_MS + 2, {"inner": True})
    span.end(NOW_MS + 3, {"last": "x"})

    work, step = recorder.span("work"), recorder.span("step")
    assert (work.start_time, work.end_time) == (1_700_000_000_000_250_000, 1_700_000_000_003_250_000)
    assert work.start_time <= step.start_time <= step.end_time <= work.end_time
    assert dict(work.attributes) == {"first": 1, "last": "x"}
    assert (trace_id(step), parent_id(step)) == (TRACE, span_id(work))


def test_a_failure_is_told():
    """With its reason."""
    recorder = SpanRecorder()
    recorder.tracer.start("work", SAMPLED, NOW_MS, {}).end(NOW_MS, error="the reason")

    assert not recorder.span("work").status.is_ok
    assert recorder.span("work").status.description == "the reason"


def test_what_its_sender_does_not_record_is_not_recorded_here():
    """The decision is made once for the whole trace."""
    assert SpanRecorder().tracer.start("work", UNSAMPLED, NOW_MS, {}) is None


def test_a_sampler_that_minds_no_senders_is_obeyed(monkeypatch):
    """OTEL_TRACES_SAMPLER=always_on records what the sender does not."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")

    assert SpanRecorder().tracer.start("work", UNSAMPLED, NOW_MS, {}) is not None


def test_of_work_without_a_trace_one_in_a_hundred_begins_one():
    """Each with an id of its own and no parent."""
    recorder = SpanRecorder()
    begun = [span for _ in range(20_000) if (span := recorder.tracer.start("work", (), NOW_MS, {}))]
    for span in begun:
        span.end(NOW_MS)

    assert 100 < len(begun) < 320
    assert len({trace_id(span) for span in recorder.spans()}) == len(begun)
    assert {parent_id(span) for span in recorder.spans()} == {None}


@pytest.mark.parametrize(("sampler", "share"), [("always_on", 1), ("parentbased_always_off", 0)])
def test_the_standard_variable_decides_how_much_is_recorded(monkeypatch, sampler, share):
    """OTEL_TRACES_SAMPLER wins over our default."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    tracer = SpanRecorder().tracer

    assert sum(tracer.start("work", (), NOW_MS, {}) is not None for _ in range(50)) == 50 * share


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "exitstream-updater"),
        ({"OTEL_SERVICE_NAME": "ours"}, "ours"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=theirs,team=ads"}, "theirs"),
    ],
)
def test_the_service_is_named_after_the_program_unless_a_variable_says_otherwise(monkeypatch, variables, name):
    """So that worker and updater can be told apart without any setting."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    recorder = SpanRecorder("updater")
    recorder.tracer.start("work", SAMPLED, NOW_MS, {}).end(NOW_MS)

    assert recorder.span("work").resource.attributes["service.name"] == name


@pytest.mark.parametrize(("exporter", "count"), [("none", 0), ("console", 1), ("console,none", 1)])
def test_the_standard_variable_decides_where_spans_go(monkeypatch, exporter, count):
    """OTEL_TRACES_EXPORTER names one exporter or several."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", exporter)
    processors = exporting_processors()
    for processor in processors:
        processor.shutdown()

    assert len(processors) == count


def test_an_exporter_that_there_is_not_is_an_error_that_names_the_variable(monkeypatch):
    """And says which there are."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otpl")

    with pytest.raises(SettingsError, match=r"OTEL_TRACES_EXPORTER names 'otpl'.*otlp, console and none"):
        exporting_processors()


@pytest.mark.parametrize(
    ("protocol", "error", "text"),
    [("grpc", MissingDependency, "opentelemetry-exporter-otlp-proto-grpc"), ("http/json", SettingsError, "http/json")],
)
def test_a_protocol_that_cannot_be_spoken_is_an_error_with_the_remedy(monkeypatch, protocol, error, text):
    """Of gRPC, the package that brings it; of others, that there are none."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)

    with pytest.raises(error, match=text):
        exporting_processors()
