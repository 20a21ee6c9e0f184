"""Who is served next, and who cannot be in time."""

from __future__ import annotations

import pytest

from runtime.clock import ManualClock
from runtime.deadline import Deadline
from runtime.records import Record
from schemas.messages import ImpressionRequest
from worker.jobs import Job, cut
from worker.waiting import PartSizes, WaitingRoom


class FlatCosts:
    """Every stage takes a millisecond per hundred tokens; there are three."""

    def seconds(self, stage, tokens):  # noqa: ARG002 - the same for every stage
        return tokens * 1e-5

    def seconds_to_end(self, depth, tokens):
        return (3 - depth) * tokens * 1e-5


@pytest.fixture
def clock():
    """Simulated time."""
    return ManualClock()


@pytest.fixture
def room():
    """Empty, with costs by hand."""
    return WaitingRoom(PartSizes(prefix_tokens=100, suffix_tokens=25), FlatCosts(), floor_share=0.4)


def _job(clock, budget_ms, candidates=4, age_ms=0, **changes):
    created = clock.wall_ms() - age_ms
    request = ImpressionRequest(
        request_id=f"{budget_ms}",
        user_id="u",
        candidate_item_ids=[f"i{number}" for number in range(candidates)],
        created_time_ms=created,
        **changes,
    )
    deadline = Deadline.at_intake(created_time_ms=created, budget_ms=budget_ms, clock=clock)
    return Job(Record("t", 0, 0, None, b""), request, deadline, budget_ms / 1000)


def _order(room):
    return [room.take().job.request.request_id for _ in range(len(room))]


def test_the_earliest_deadline_is_served_first(room, clock):
    """Whatever the order of arrival."""
    for budget_ms in (300, 100, 200):
        room.add(cut(_job(clock, budget_ms), 64, 256))

    assert _order(room) == ["100", "200", "300"]


def test_beyond_its_fair_share_a_request_waits_until_nobody_else_does(room, clock):
    """Parts of a large request beyond the share come last, though its deadline is first."""
    room.add(cut(_job(clock, 100, candidates=5), part_candidates=2, fair_candidates=2))
    room.add(cut(_job(clock, 200), 64, 256))

    assert _order(room) == ["100", "200", "100", "100"]


def test_what_came_late_does_not_overtake_what_can_be_in_time(room, clock):
    """Rather late than from the graph: but not at the cost of others."""
    room.add(cut(_job(clock, 200, age_ms=5000, quality_floor="final_head"), 64, 256))
    room.add(cut(_job(clock, 100), 64, 256))

    assert _order(room) == ["100", "200"]


def test_parts_cover_all_candidates_once(clock):
    """In order, none larger than asked for."""
    parts = cut(_job(clock, 100, candidates=130), part_candidates=64, fair_candidates=100)

    assert [(part.start, part.stop, part.bulk) for part in parts] == [
        (0, 64, False),
        (64, 128, False),
        (128, 130, True),
    ]
    assert sum(len(part) for part in parts) == 130


def test_the_hopeless_are_taken_out(room, clock):
    """Those whose first head cannot be reached, by predicted times; the others keep waiting."""
    for budget_ms in (1, 3, 50):
        room.add(cut(_job(clock, budget_ms), 64, 256))
    room.add(cut(_job(clock, 200, age_ms=5000, quality_floor="first_head"), 64, 256))

    hopeless = room.take_hopeless(clock.monotonic(), busy_s=0.0, margin_s=0.0)

    assert [part.job.request.request_id for part in hopeless] == ["1", "3"]
    assert len(room) == 2
    assert room.take_hopeless(clock.monotonic(), 0.0, 0.0) == []


def test_bulk_asks_for_nothing(room, clock):
    """The threshold is not lowered for candidates beyond a fair share."""
    room.add(cut(_job(clock, 100, candidates=10), part_candidates=2, fair_candidates=2))

    [demand] = room.demands(margin_s=0.01)
    assert demand.deadline_s == pytest.approx(0.09)
    assert demand.work_s == pytest.approx(2 * 150e-5)
    assert demand.fixed_s > 150e-5


def test_sizes_are_learned():
    """Predictions move to what prompts really are."""
    sizes = PartSizes(prefix_tokens=10, suffix_tokens=10)
    for _ in range(200):
        sizes.learn(candidates=4, prefix_tokens=80, suffix_tokens=4 * 30, prepare_s=0.01)

    assert sizes.tokens(4) == pytest.approx(200, abs=2)
    assert sizes.prepare_s(4) == pytest.approx(0.01, rel=0.05)
