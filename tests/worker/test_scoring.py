"""What the compute thread does with jobs."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.codec import encode


async def test_load_lowers_the_threshold_and_its_end_brings_it_back(desk):
    """With more waiting than the budget buys at full depth it is below base; answered, it returns to base."""
    controller = desk.scorer.model.controller
    waiting = [desk.request(*(f"i{item}" for item in range(20)), request_id=f"r{n}", budget_ms=900) for n in range(400)]
    await desk.take_in(*(desk.record(encode(request)) for request in waiting))
    desk.pipeline.step()
    assert controller.threshold < 0.9
    await desk.work()

    now_s = desk.clock.monotonic()
    for step in range(30):
        controller.update(now_s + 0.1 * step, [])
    assert controller.threshold == pytest.approx(0.9)
    assert len(desk.scores()) == 400


async def test_under_overload_every_rung_of_the_ladder_answers(desk):
    """More than can be computed: some by a head, the rest from the graph, each told as what it is."""
    waiting = [
        desk.request(*(f"i{item}" for item in range(20)), request_id=f"r{n}", budget_ms=1000) for n in range(900)
    ]
    await desk.take_in(*(desk.record(encode(request)) for request in waiting))
    await desk.work()

    scores = [score for answer in desk.scores() for score in answer.scores]
    assert {"graph"} < {score.made_by for score in scores}
    assert all((score.exit_layer == 0) == (score.made_by == "graph") for score in scores)
    assert all(0 < score.ctr < 1 for score in scores)


async def test_a_request_in_parts_scores_like_one_whole(make_desk):
    """Where it is cut changes no score."""
    items = [f"i{number}" for number in range(20)]
    whole, parts = make_desk(part_candidates=64), make_desk(part_candidates=3)

    expected = await whole.answer(whole.request(*items))
    found = await parts.answer(parts.request(*items))

    np.testing.assert_allclose(
        [score.ctr for score in found.scores], [score.ctr for score in expected.scores], atol=1e-5
    )
    assert [score.neighbours for score in found.scores] == [score.neighbours for score in expected.scores]


async def test_what_the_engine_leaves_to_the_graph_is_scored_there(desk):
    """The engine itself runs out of time for a request that was admitted: still a rate, told as graph."""
    request = desk.request("i1", "i2", budget_ms=60_000)
    await desk.take_in(desk.record(encode(request)))
    desk.scorer.admit(desk.pipeline._arrived())
    part = desk.scorer.next_part()
    object.__setattr__(part.job.deadline, "at", desk.clock.monotonic() - 1)
    evidence = desk.scorer.retrieve(part)
    desk.scorer.submit(part, desk.scorer.build_prompt(part, evidence))
    await desk.work()

    [scores] = desk.scores()
    assert [(score.made_by, score.exit_layer) for score in scores.scores] == [("graph", 0)] * 2
    assert all(0 < score.ctr < 1 for score in scores.scores)
    assert scores.status == "late"


async def test_the_tables_sizes_are_told(desk):
    """For dashboards."""
    desk.scorer.note_state()

    assert desk.metrics.value("exitstream_worker_table_entries", kind="user") == 10
    assert desk.metrics.value("exitstream_worker_search_recall", kind="item") == 1
