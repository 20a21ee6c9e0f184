"""One model takes another's place while requests are under way."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from bundle_variants import with_other_scores

from schemas.codec import encode
from worker.engine.engine import ScoringEngine
from worker.model import ServingModel
from worker.state_store.tables import Tables


@pytest.fixture
def make_other(tiny_bundle, filled_tables, serving_model):
    """Makes models over the same tables whose scores are higher, with engines of their own."""

    def make(tables=filled_tables):
        costs = serving_model.engine.costs
        bundle = replace(with_other_scores(tiny_bundle), version="other")
        engine = ScoringEngine(bundle.model, bundle.calibration, serving_model.engine._settings, costs=costs)
        return ServingModel.around(engine, bundle, tables)

    return make


async def _accept(desk, count, items=("i3", "i1", "i4")):
    await desk.accept(*(desk.record(encode(desk.request(*items, request_id=f"r{number}"))) for number in range(count)))


async def test_requests_after_a_swap_are_answered_by_the_new_model(desk, make_other):
    """And those before by the former one; scores tell which."""
    before = await desk.answer(desk.request("i3"))
    desk.serving.swap(make_other())
    after = await desk.answer(desk.request("i3"))

    assert (before.model_version, after.model_version) == (desk.model.version, "other")
    assert after.scores[0].ctr > before.scores[0].ctr


async def test_requests_that_no_work_has_begun_on_move_to_the_new_model(make_desk, make_other):
    """Those in progress stay with the model that began them: no request has scores of two."""
    desk = make_desk(engine={"prepare_ahead_tokens": 300, "max_batch_tokens": 128})
    await _accept(desk, 40)
    desk.pipeline.infer()
    desk.serving.swap(make_other())
    assert len(desk.serving._retiring) == 1
    await desk.work()

    answered = desk.scores()
    versions = [scores.model_version for scores in answered]
    assert sorted(scores.request_id for scores in answered) == sorted(f"r{number}" for number in range(40))
    assert {desk.model.version, "other"} == set(versions)
    assert versions.count("other") > 20
    alone = {version: await _ctr_alone(make_desk, make_other, version) for version in set(versions)}
    for scores in answered:
        assert [score.ctr for score in scores.scores] == pytest.approx(alone[scores.model_version], abs=1e-6)


async def _ctr_alone(make_desk, make_other, version):
    """The scores of the same request by one of the two models, at the same threshold and without company."""
    desk = make_desk(engine={"prepare_ahead_tokens": 300, "max_batch_tokens": 128})
    if version == "other":
        desk.serving.swap(make_other())
    return [score.ctr for score in (await desk.answer(desk.request("i3", "i1", "i4"))).scores]


async def test_a_request_in_parts_is_finished_by_the_model_that_began_it(make_desk, make_other, tiny_bundle):
    """However many of its parts still wait, and with evidence from that model's own tables."""
    desk = make_desk(engine={"part_candidates": 4, "prepare_ahead_tokens": 100, "max_batch_tokens": 128})
    await _accept(desk, 1, [f"i{number}" for number in range(20)])
    desk.pipeline.infer()
    desk.serving.swap(make_other(Tables(tiny_bundle.text, tiny_bundle.graph.dim)))
    await desk.work()

    [scores] = desk.scores()
    assert scores.model_version == desk.model.version
    assert len(scores.scores) == 20
    assert all(score.neighbours for score in scores.scores)


async def test_what_waits_for_the_graph_is_answered_by_its_own_model(make_desk, make_other):
    """A request that was given up for the graph has begun, although no work has been done on it."""
    desk = make_desk(engine={"graph_batch": 1})
    await desk.accept(*(desk.record(encode(desk.request("i3", budget_ms=0))) for _ in range(5)))
    desk.pipeline.infer()
    desk.serving.swap(make_other())
    await desk.work()

    answered = desk.scores()
    assert len(answered) == 5
    assert {scores.model_version for scores in answered} == {desk.model.version}


async def test_a_request_that_the_graph_will_answer_in_part_has_begun(desk):
    """Its other parts wait, but no part may go to another model."""
    engine = desk.serving.model.engine
    await _accept(desk, 2)
    for job in list(desk.pipeline._accepted):
        desk.serving.enqueue(job)
    engine._fallback.add(desk.pipeline._accepted[0], np.arange(1))

    assert engine.take_unbegun() == [desk.pipeline._accepted[1]]


async def test_two_swaps_in_a_row_lose_nothing(make_desk, make_other):
    """There and back while the first model still has work."""
    desk = make_desk(engine={"prepare_ahead_tokens": 300, "max_batch_tokens": 128})
    await _accept(desk, 20)
    desk.pipeline.infer()
    desk.serving.swap(make_other())
    desk.pipeline.infer()
    desk.serving.swap(replace(make_other(), version="third"))
    await desk.work()

    assert sorted(scores.request_id for scores in desk.scores()) == sorted(f"r{number}" for number in range(20))
    assert {scores.model_version for scores in desk.scores()} <= {desk.model.version, "other", "third"}
    assert (await desk.answer(desk.request("i3"))).model_version == "third"
    assert not desk.serving.is_busy


async def test_a_model_that_has_finished_is_let_go(desk, make_other):
    """Its weights and tables must not stay in memory with every release."""
    desk.serving.swap(make_other())
    engine = weakref.ref(desk.serving.model.engine)
    await desk.answer(desk.request("i3"))
    gc.collect()
    gc.freeze()  # as the worker does: what is in a cycle then is never collected
    try:
        desk.serving.swap(make_other())
        await desk.answer(desk.request("i3"))
        desk.metrics.note_engine(desk.serving.model.engine.counters)
        assert engine() is None
    finally:
        gc.unfreeze()
