"""The trace of a request: which requests have one, what its spans tell, what its scores carry."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import structlog.testing
from span_recorder import SAMPLED, SPAN, TRACE, UNSAMPLED, SpanRecorder, header_of, parent_id, span_id, trace_id

from schemas.codec import encode
from worker.tracing import RequestTracing

STATE = ("tracestate", b"vendor=1")


@pytest.fixture(autouse=True)
def no_sampling_by_chance(monkeypatch):
    """Only requests whose senders trace them."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")


@pytest.fixture
def recorder(no_sampling_by_chance):  # noqa: ARG001 - its variable must be set before
    """Keeps the spans."""
    return SpanRecorder()


@pytest.fixture
def make_traced_desk(make_desk, recorder):
    """Makes workers without Kafka whose traces are on."""

    def make(**changes):
        return make_desk(tracing=tracing_with(recorder), **changes)

    return make


def tracing_with(recorder):
    """Traces of a desk's requests, into a recorder."""
    return lambda desk: RequestTracing(recorder.tracer, desk.settings, desk.clock)


def _headers(desk):
    """Of the last record written."""
    return dict(desk.delivery.outputs[-1][1][-1].headers)


async def test_a_traced_request_has_a_span_for_every_step(make_traced_desk, recorder):
    """Queue, retrieval, prompt, the stages it passed, publication: all in the sender's trace, under one span."""
    desk = make_traced_desk()
    scores = await desk.answer(desk.request("i3", "i1", "i4"), SAMPLED)

    root = recorder.span("score request")
    steps = [span for span in recorder.spans() if span is not root]
    deepest = max(score.exit_layer for score in scores.scores)
    stages = [f"stage {number}" for number, layer in enumerate((1, 2, 4), 1) if layer <= deepest]
    assert (trace_id(root), parent_id(root)) == (TRACE, SPAN)
    assert [span.name for span in steps] == ["queue", "retrieve", "prompt", *stages, "publish"]
    assert {(trace_id(span), parent_id(span)) for span in steps} == {(TRACE, span_id(root))}


async def test_steps_follow_each_other_and_cover_the_request(make_traced_desk, recorder):
    """The queue begins with the request, publication ends with it, and none begins before the one before it ends."""
    desk = make_traced_desk()
    await desk.answer(desk.request("i3", "i1", "i4"), SAMPLED)

    root = recorder.span("score request")
    steps = [span for span in recorder.spans() if span is not root]
    assert steps[0].start_time == root.start_time
    assert steps[-1].end_time == root.end_time
    assert all(before.end_time <= after.start_time for before, after in pairwise(steps))
    assert all(span.start_time <= span.end_time for span in steps)


async def test_the_spans_tell_what_the_scores_tell(make_traced_desk, recorder):
    """Model, status, threshold, and how many candidates left where."""
    desk = make_traced_desk()
    scores = await desk.answer(desk.request("i3", "i1", "i4", "i7"), SAMPLED)

    told = recorder.span("score request").attributes
    layers = [score.exit_layer for score in scores.scores]
    stages = [span.attributes for span in recorder.spans() if span.name.startswith("stage")]
    assert told["exitstream.request_id"] == scores.request_id
    assert told["exitstream.model_version"] == scores.model_version
    assert told["exitstream.status"] == "ok"
    assert told["exitstream.exit_threshold"] == scores.exit_threshold
    assert told["messaging.destination.name"] == "impression-requests"
    assert {layer: told.get(f"exitstream.exits.layer_{layer}", 0) for layer in (1, 2, 4)} == {
        layer: layers.count(layer) for layer in (1, 2, 4)
    }
    assert [stage["exitstream.exits"] for stage in stages] == [
        layers.count(stage["exitstream.layers.last"]) for stage in stages
    ]
    assert [stage["exitstream.candidates"] for stage in stages] == [
        sum(layer >= stage["exitstream.layers.last"] for layer in layers) for stage in stages
    ]
    assert [stage["exitstream.layers.first"] for stage in stages] == [1, 2, 3][: len(stages)]


async def test_a_request_in_parts_has_the_steps_of_every_part(make_traced_desk, recorder):
    """Each part is retrieved, prompted and passes its stages; every exit is counted once, at its own layer."""
    thresholds = {"base_threshold": 0.65, "floor_threshold": 0.1}
    desk = make_traced_desk(engine={"part_candidates": 3}, controller=thresholds)
    scores = await desk.answer(desk.request(*(f"i{number}" for number in range(12))), SAMPLED)

    stages = [span.attributes for span in recorder.spans() if span.name.startswith("stage")]
    exits = Counter()
    for stage in stages:
        exits[stage["exitstream.layers.last"]] += stage["exitstream.exits"]
    assert len(recorder.spans("retrieve")) == len(recorder.spans("prompt")) == 4
    assert +exits == Counter(score.exit_layer for score in scores.scores)
    assert len(+exits) > 1


async def test_the_scores_carry_the_trace_of_their_request(make_traced_desk, recorder):
    """What reads them goes on with the span of the scoring."""
    desk = make_traced_desk()
    await desk.answer(desk.request("i3"), (*SAMPLED, STATE))

    assert _headers(desk)["traceparent"].startswith(header_of(recorder.span("score request")))
    assert _headers(desk)["tracestate"] == STATE[1]


async def test_the_trace_of_a_request_that_is_not_recorded_is_passed_on(make_traced_desk, recorder):
    """As it came: those behind learn as well that it is not recorded. No timeline is kept for it."""
    desk = make_traced_desk()
    await desk.answer(desk.request("i3"), (*UNSAMPLED, STATE))

    assert recorder.spans() == []
    assert [(name, value) for name, value in _headers(desk).items() if name.startswith("trace")] == [*UNSAMPLED, STATE]


async def test_a_request_without_a_trace_may_begin_one(make_desk, monkeypatch):
    """Its scores tell it, so that their reader can go on with it."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    recorder = SpanRecorder()
    desk = make_desk(tracing=tracing_with(recorder))
    await desk.answer(desk.request("i3"))

    root = recorder.span("score request")
    assert parent_id(root) is None
    assert _headers(desk)["traceparent"].startswith(header_of(root))


async def test_where_traces_are_off_scores_carry_none(desk):
    """Whatever the request says."""
    await desk.answer(desk.request("i3"), SAMPLED)

    assert "traceparent" not in _headers(desk)


async def test_a_request_answered_from_the_graph_has_no_stages(make_traced_desk, recorder):
    """It waited, and was published; the graph answered all of its candidates."""
    desk = make_traced_desk()
    await desk.answer(desk.request("i3", "i1", budget_ms=0), SAMPLED)

    assert [span.name for span in recorder.spans()] == ["queue", "publish", "score request"]
    assert recorder.span("score request").attributes["exitstream.made_by.graph"] == 2


async def test_scores_that_cannot_be_written_end_their_trace_as_an_error(make_traced_desk, recorder):
    """With the reason that the dead letter has."""
    desk = make_traced_desk(max_record_bytes=1_024)
    await desk.accept(desk.record(encode(desk.request(*(f"i{number}" for number in range(40)))), SAMPLED))
    await desk.work()

    assert len(desk.letters()) == 1
    assert "cannot be written" in recorder.span("score request").status.description


async def test_scores_that_the_broker_refuses_end_their_trace_once_and_as_an_error(make_traced_desk, recorder):
    """Also where the letter is written in their place."""
    desk = make_traced_desk()
    desk.delivery.refusals = 2
    await desk.accept(desk.record(encode(desk.request("i3")), SAMPLED))
    await desk.work()

    assert "refuses its scores" in recorder.span("score request").status.description
    assert len(recorder.spans("queue")) == 1
    assert recorder.spans("publish") == []


async def test_a_fault_of_tracing_costs_no_scores(make_traced_desk, monkeypatch):
    """It is logged, and the request goes on."""
    desk = make_traced_desk()
    monkeypatch.setattr(desk.pipeline._observers.tracing._tracer, "start", None)

    with structlog.testing.capture_logs() as logs:
        scores = await desk.answer(desk.request("i3"), SAMPLED)

    assert len(scores.scores) == 1
    assert "a trace could not be made" in [line["event"] for line in logs]
