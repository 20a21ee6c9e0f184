"""The line per request."""

from __future__ import annotations

import pytest
import structlog

from runtime.clock import ManualClock
from worker.metrics import RequestLog
from worker.settings import WorkerSection


@pytest.fixture
async def job(desk):
    """An answered request."""
    answered = []
    desk.pipeline._log.write = answered.append
    await desk.answer(desk.request("i1", "i2", request_id="told"))
    return answered[0]


async def test_one_line_tells_all_of_a_request(job):
    """Which, where from, what became of it, how it was made and where the time went."""
    with structlog.testing.capture_logs() as lines:
        RequestLog(WorkerSection(), ManualClock()).write(job)

    [line] = lines
    assert line["event"] == "request"
    assert (line["request_id"], line["status"], line["candidates"]) == ("told", "ok", 2)
    assert line["place"].startswith("impression-requests[0]@")
    assert sum(line["made_by"].values()) == 2
    assert line["retrieve_ms"] >= 0
    assert line["threshold"] == pytest.approx(0.9)


async def test_at_high_rates_a_part_is_written_and_the_rest_counted(job):
    """Logging must not become the load; nothing is left out silently."""
    clock = ManualClock()
    requests = RequestLog(WorkerSection(request_log_per_s=3), clock)
    with structlog.testing.capture_logs() as lines:
        for _ in range(10):
            requests.write(job)
        clock.advance(1)
        requests.write(job)

    assert len(lines) == 4
    assert lines[-1]["unwritten_before"] == 7


async def test_it_can_be_turned_down_or_off(job):
    """By setting."""
    with structlog.testing.capture_logs() as lines:
        RequestLog(WorkerSection(request_log="off"), ManualClock()).write(job)
        RequestLog(WorkerSection(request_log="debug"), ManualClock()).write(job)

    assert [line["log_level"] for line in lines] == ["debug"]
