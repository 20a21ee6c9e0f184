"""The line per request, and what is counted of answers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from runtime.clock import ManualClock
from runtime.deadline import Deadline
from runtime.records import Record
from schemas.messages import ImpressionRequest
from worker.engine.scoring_job import MADE_BY
from worker.job import Job
from worker.metrics import RequestLog, WorkerMetrics
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


_ANSWERS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(MADE_BY)), max_size=6)
"""Exit layer and origin of each candidate of a request."""


def _answered(answers):
    request = ImpressionRequest(
        request_id="r", user_id="u", candidate_item_ids=[f"i{at}" for at in range(len(answers))], created_time_ms=0
    )
    deadline = Deadline.at_intake(created_time_ms=0, budget_ms=200, clock=ManualClock())
    job = Job(Record("impression-requests", 0, 0, b"u", b""), request, deadline, 0.2)
    for place, (exit_layer, made_by) in enumerate(answers):
        job.answer(np.array([place]), 0.5, exit_layer, 0.5, MADE_BY.index(made_by))
    job.token_layers_run, job.token_layers_full = 10 * len(answers), 30 * len(answers)
    return job


@given(st.lists(_ANSWERS, max_size=6), st.integers(1, 6))
def test_answers_count_the_same_however_many_are_counted_together(requests, at_once):
    """Requests, candidates by origin and exit layer, tokens and observations; also of none, and without candidates."""
    metrics = WorkerMetrics()
    jobs = [_answered(answers) for answers in requests]
    metrics.note_answers([])
    for some in _portions(jobs, at_once):
        metrics.note_answers(some)

    for status, count in Counter(job.status for job in jobs).items():
        assert metrics.value("exitstream_worker_requests_total", status=status) == count
    candidates = Counter(answer for answers in requests for answer in answers)
    for (exit_layer, made_by), count in candidates.items():
        name = "exitstream_worker_candidates_total"
        assert metrics.value(name, made_by=made_by, exit_layer=exit_layer) == count
    assert metrics.value("exitstream_worker_token_layers_run_total") == 10 * candidates.total()
    assert metrics.value("exitstream_worker_token_layers_full_total") == 30 * candidates.total()
    assert metrics.value("exitstream_worker_latency_seconds_count") == len(jobs)


def _portions(jobs, size):
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]
