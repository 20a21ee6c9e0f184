"""Traces of the programs on real Kafka, as a collector gets them."""

from __future__ import annotations

import msgspec
import pytest
from otlp_receiver import OtlpReceiver
from span_recorder import SAMPLED, SPAN, TRACE
from updater_parts import click
from updater_world import UpdaterWorld
from worker_lab import WorkerLab, requests, until

from runtime.kafka import RecordSink
from runtime.records import OutRecord
from schemas.codec import encode, headers_for

pytestmark = pytest.mark.docker
HEADERS = (*headers_for("msgpack"), *SAMPLED)


@pytest.fixture
def collector(monkeypatch):
    """The programs that are started send their spans there."""
    with OtlpReceiver() as receiver:
        for name, value in receiver.environment.items():
            monkeypatch.setenv(name, value)
        yield receiver


async def _send(broker, record):
    async with RecordSink(broker.settings()) as sink:
        await sink.send(record)
        await sink.flush()


def _nested(span, inside):
    return span.parent_id == inside.span_id and inside.start_ns <= span.start_ns <= span.end_ns <= inside.end_ns


async def test_a_trace_goes_from_the_request_to_its_scores(broker, tiny_bundle_folder, tmp_path, collector):
    """One trace: the sender's span, the request's under it with all of its steps, and the scores that carry it on."""
    lab = WorkerLab(broker, tiny_bundle_folder)
    await lab.prepare()
    with lab.process(lab.settings(), tmp_path / "worker.log") as worker:
        await worker.ready()
        [request] = requests(1)
        record = OutRecord(lab.topics.impression_requests, request.user_id.encode(), encode(request), HEADERS)
        await _send(broker, record)
        [scores] = await lab.records(lab.topics.ctr_scores, 1)
        await until(lambda: "score request" in collector.of_trace(TRACE))
        assert await worker.drain() == 0

    spans = collector.of_trace(TRACE)
    root = spans.pop("score request")
    assert (root.service, root.parent_id) == ("exitstream-worker", SPAN)
    assert root.attributes["exitstream.request_id"] == request.request_id
    assert {"queue", "retrieve", "prompt", "stage 1", "publish"} <= spans.keys()
    assert all(_nested(span, root) for span in spans.values())
    assert dict(scores.headers)["traceparent"].startswith(f"00-{TRACE}-{root.span_id}-".encode())


async def test_a_trace_goes_from_an_interaction_to_the_states(
    broker, tiny_bundle, tiny_bundle_folder, tmp_path, collector
):
    """One trace: the sender's span, the update's under it, and the states of user and item that carry it on."""
    world = UpdaterWorld(broker, tiny_bundle, tiny_bundle_folder, tmp_path)
    await world.create()
    try:
        with world.process() as updater:
            record = msgspec.structs.replace(world.record(click("u1", "i2")), headers=HEADERS)
            await _send(broker, record)
            await world.published.until_equal()
            await until(lambda: "update state" in collector.of_trace(TRACE))
            assert updater.terminate() == 0
    finally:
        await world.published.stop()

    lab = WorkerLab(broker, tiny_bundle_folder)
    states = await lab.records(world.topics.user_states, 1) + await lab.records(world.topics.item_states, 1)
    carried = {state.key: dict(state.headers).get("traceparent", b"") for state in states}
    spans = collector.of_trace(TRACE)
    root = spans["update state"]
    assert (root.service, root.parent_id) == ("exitstream-updater", SPAN)
    assert _nested(spans["publish"], root)
    for key in (b"u1", b"i2"):
        assert carried[key].startswith(f"00-{TRACE}-{root.span_id}-".encode())
