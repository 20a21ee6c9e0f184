"""The engine as a whole: what leaves when, and that nothing but time is saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.calibration import CONFIDENCE_FEATURES, ExitCalibration
from models.prompt import Prompt
from models.prompt_batch import collate
from worker.budget.controller import FixedThreshold
from worker.engine.cost import CostTable
from worker.engine.engine import ScoringEngine
from worker.engine.scoring_job import CONFIDENT, DEADLINE, FINAL, GRAPH, ScoringJob
from worker.engine.settings import EngineSettings
from worker.engine.transformer.linear import SLICE_SIZES

NEVER = 2.0
"""An exit threshold that no confidence reaches."""
MIDDLING = 0.5
"""One that some candidates of this file's prompts reach at the first head, some at the second, some never."""
LAYERS = 4
GRAPH_RATE = 0.25

EngineMaker = Callable[..., ScoringEngine]


class Clock:
    """Time that goes on when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """The clock of every engine that `make_engine` makes."""
    return Clock()


@pytest.fixture
def calibration(calibration, make_model, prompts) -> ExitCalibration:
    """At every early head about half of this file's candidates are confident at the middling threshold."""
    with torch.inference_mode():
        logits = make_model()(collate(prompts)).numpy()
    weights = calibration.confidence_weights.copy()
    for head in range(calibration.heads - 1):
        odds = np.log(1 / calibration.confidence(head, logits[:, : head + 1]) - 1)
        weights[head, CONFIDENCE_FEATURES.index("bias")] = np.median(odds)
    return replace(calibration, confidence_weights=weights)


@pytest.fixture
def make_engine(make_model, calibration, clock) -> EngineMaker:
    """Engines with the same small model, by exit threshold and settings."""

    def make(threshold: float = NEVER, costs: CostTable | None = None, **settings: object) -> ScoringEngine:
        return ScoringEngine(
            make_model(),
            calibration,
            EngineSettings(**{"prefix_cache_bytes": 0} | settings),
            FixedThreshold(threshold),
            costs,
            clock,
        )

    return make


@pytest.fixture
def prompts(make_prompt) -> list[Prompt]:
    """Three requests of different shapes."""
    return [make_prompt(9, [4, 6, 1, 5]), make_prompt(3, [5, 2]), make_prompt(17, [3] * 6)]


@pytest.fixture
def run(source) -> Callable[..., list[ScoringJob]]:
    """Enqueues all prompts at once and steps until they are answered; the jobs, in the order of the prompts."""

    def enqueue_and_step(engine: ScoringEngine, prompts: Sequence[Prompt], **more: object) -> list[ScoringJob]:
        jobs = [source.job(prompt, **more) for prompt in prompts]
        for job in jobs:
            engine.enqueue(job)
        while engine.busy:
            engine.step(source)
        return jobs

    return enqueue_and_step


def test_at_full_depth_the_batch_scores_what_each_request_scores_alone(run, make_engine, prompts):
    """Packing several requests changes no score."""
    engine = make_engine()
    for job, prompt in zip(run(make_engine(), prompts), prompts, strict=True):
        np.testing.assert_allclose(job.ctr, engine.trace(prompt).ctr[:, -1], atol=1e-5)
        assert (job.made_by == FINAL).all()
        assert (job.exit_layer == LAYERS).all()
        assert (job.confidence == 1).all()
        assert job.token_layers_run == job.token_layers_full
        assert job.threshold == NEVER


def test_a_batch_of_several_slices_scores_what_the_reference_scores(make_engine, make_model, make_prompt, calibration):
    """Products of a large batch are made a slice of rows at a time; the last slice may be short."""
    prompts = [make_prompt(100, [30] * 40), make_prompt(50, [25] * 30)]
    assert SLICE_SIZES[0] < sum(prompt.tokens for prompt in prompts) < 2.5 * SLICE_SIZES[0]
    engine = make_engine(part_candidates=64, prepare_ahead_tokens=8_192)
    with torch.inference_mode():
        logits = make_model()(collate(prompts)).double().numpy()[:, -1]
    computed = np.concatenate([job.ctr for job in engine.score(prompts)])
    assert engine.counters.steps == 3  # one batch, three stages
    np.testing.assert_allclose(computed, calibration.ctr(2, logits), atol=1e-5)


def test_early_answers_are_those_of_their_head(run, make_engine, prompts):
    """Whoever leaves early has the rate and the confidence of the first head whose confidence reached the threshold."""
    engine = make_engine(MIDDLING)
    for job, prompt in zip(run(engine, prompts), prompts, strict=True):
        trace = engine.trace(prompt)
        heads = np.argmax(trace.confidence >= MIDDLING, axis=1)
        rows = np.arange(len(heads))
        np.testing.assert_allclose(job.ctr, trace.ctr[rows, heads], atol=1e-5)
        np.testing.assert_allclose(job.confidence, trace.confidence[rows, heads], atol=1e-5)
        np.testing.assert_array_equal(job.exit_layer, np.array([1, 3, 4])[heads])
        np.testing.assert_array_equal(job.made_by, np.where(heads == 2, FINAL, CONFIDENT))


def test_ready_made_prompts_are_scored_like_requests(run, make_engine, prompts):
    """`score`, which evaluation and benchmarks use, gives a request's answers, in the order of the prompts."""
    for job, ready in zip(run(make_engine(MIDDLING), prompts), make_engine(MIDDLING).score(prompts), strict=True):
        np.testing.assert_allclose(ready.ctr, job.ctr, atol=1e-6)
        np.testing.assert_array_equal(ready.exit_layer, job.exit_layer)


def test_the_threshold_decides_between_heads(run, make_engine, prompts):
    """The prompts of this file do use every head at a middling threshold, so the tests above see all cases."""
    layers = np.concatenate([job.exit_layer for job in run(make_engine(MIDDLING), prompts)])
    assert set(layers) == {1, 3, 4}


def test_token_layers_are_counted_as_executed(run, make_engine, prompts):
    """A token counts for the layers that it passed before its candidate left, a prefix before the last one left.

    Of the layer before a head only the answers count, once for every head reached.
    """
    engine = make_engine(MIDDLING)
    jobs = run(engine, prompts)
    for job, prompt in zip(jobs, prompts, strict=True):
        lengths = np.array([len(suffix) for suffix in prompt.suffixes])
        passed = (lengths * (job.exit_layer - 1)).sum() + len(prompt.prefix) * (job.exit_layer.max() - 1)
        answers = np.searchsorted([1, 3, 4], job.exit_layer) + 1
        assert job.token_layers_run == passed + answers.sum()
        assert job.token_layers_full == (LAYERS - 1) * (len(prompt.prefix) + lengths.sum()) + 3 * len(lengths)
    assert engine.counters.token_layers_run == sum(job.token_layers_run for job in jobs)
    assert engine.counters.token_layers_full == sum(job.token_layers_full for job in jobs)


def test_rows_of_those_who_left_are_gone(make_engine, source, prompts):
    """After an exit the next stage gets only the prefix and the suffixes that are left."""
    engine = make_engine(MIDDLING)
    for prompt in prompts:
        engine.enqueue(source.job(prompt))
    engine.step(source)
    parts = engine._queue._prepared
    assert 0 < sum(len(part) for part in parts) < sum(len(prompt.suffixes) for prompt in prompts)
    for part in parts:
        expected = sum(len(part.prompt.suffixes[candidate]) for candidate in part.candidates)
        assert part.suffix_hidden.shape[0] == part.suffix_tokens == expected


def test_everyone_leaves_at_the_first_head_when_nothing_is_asked_for(make_engine, source, prompts):
    """At threshold zero a single step answers everything, at the depth of the first head."""
    engine = make_engine(0.0)
    for prompt in prompts:
        engine.enqueue(source.job(prompt))
    jobs = engine.step(source)
    assert len(jobs) == 3
    assert all((job.exit_layer == 1).all() for job in jobs)
    assert not engine.busy


def test_a_request_joins_those_at_its_depth(make_engine, source, prompts, clock):
    """A request that comes while another stands at a head catches up and both go on in one batch, scores unchanged."""
    engine = make_engine()
    first, second = source.job(prompts[0], deadline_s=1050.0), source.job(prompts[1], deadline_s=1020.0)
    engine.enqueue(first)
    engine.step(source)
    engine.enqueue(second)  # more urgent: runs its first stage next
    for depth in (1, 2):
        engine.step(source)
        assert [part.depth for part in engine._queue._prepared] == [depth, depth]
    assert set(engine.step(source)) == {first, second}
    for job, prompt in zip((first, second), prompts, strict=False):
        np.testing.assert_allclose(job.ctr, engine.trace(prompt).ctr[:, -1], atol=1e-5)
    assert clock.now_s == first.scored_s == second.scored_s


def test_out_of_time_the_deepest_head_answers(make_engine, source, prompts, clock):
    """At its deadline a request is answered by the head it has reached, and marked so."""
    engine = make_engine()
    engine.enqueue(source.job(prompts[0], deadline_s=clock.now_s + 5))
    engine.step(source)
    clock.now_s += 6
    (job,) = engine.step(source)
    trace = engine.trace(prompts[0])
    np.testing.assert_allclose(job.ctr, trace.ctr[:, 0], atol=1e-5)
    np.testing.assert_allclose(job.confidence, trace.confidence[:, 0], atol=1e-5)
    assert (job.made_by == DEADLINE).all()
    assert (job.exit_layer == 1).all()


def test_the_time_that_delivering_takes_is_kept_back(make_engine, source, prompts, clock):
    """A request is out of time as soon as its scores could not be delivered any more, prepared or waiting."""
    engine = make_engine()
    jobs = [source.job(prompt, deadline_s=clock.now_s + 5) for prompt in prompts[:2]]
    engine.enqueue(jobs[0])
    engine.step(source, margin_s=4.9)
    assert engine.step(source, margin_s=5.1) == [jobs[0]]
    assert (jobs[0].made_by == DEADLINE).all()
    engine.enqueue(jobs[1])
    assert engine.step(source, margin_s=5.1) == [jobs[1]]
    assert (jobs[1].made_by == GRAPH).all()
    assert source.prepared == [jobs[0]]


def test_without_time_for_any_head_the_graph_answers(make_engine, source, prompts, clock):
    """A request whose time is up before it is prepared gets the graph's rates and costs no preparation."""
    engine = make_engine()
    engine.enqueue(source.job(prompts[0], deadline_s=clock.now_s - 1))
    (job,) = engine.step(source)
    assert (job.ctr == GRAPH_RATE).all()
    assert (job.made_by == GRAPH).all()
    assert (job.exit_layer == 0).all()
    assert job.threshold == NEVER
    assert source.prepared == []


def test_a_prepared_request_without_time_for_its_first_head_is_left_to_the_graph(make_engine, source, prompts, clock):
    """Time can run out between preparation and the first stage: still a rate, told as the graph's."""
    engine = make_engine()
    job = source.job(prompts[0], deadline_s=clock.now_s + 2)
    engine.enqueue(job)
    engine._prepare(source, 1e9)
    clock.now_s += 3
    assert engine.step(source) == [job]
    assert (job.made_by == GRAPH).all()
    assert (job.ctr == GRAPH_RATE).all()
    assert job.token_layers_run == 0


@pytest.mark.parametrize("left_to_graph", [0, 1, 2])
def test_a_part_that_cannot_be_prepared_is_scored_by_the_graph_alone(
    make_engine, make_prompt, source, left_to_graph, monkeypatch
):
    """Whichever part of a request fails, its candidates get the graph's rates and the others keep their heads'."""
    prompt = make_prompt(4, [3, 4, 5, 2, 6])
    engine = make_engine(part_candidates=2)
    job = source.job(prompt)
    prepare = source.prepare

    def failing(job, places):
        if places[0] == 2 * left_to_graph:
            raise RuntimeError("a fault")
        return prepare(job, places)

    monkeypatch.setattr(source, "prepare", failing)
    engine.enqueue(job)
    while engine.busy:
        engine.step(source)
    failed = np.arange(5) // 2 == left_to_graph
    np.testing.assert_array_equal(job.made_by, np.where(failed, GRAPH, FINAL))
    np.testing.assert_allclose(job.ctr, np.where(failed, GRAPH_RATE, engine.trace(prompt).ctr[:, -1]), atol=1e-5)
    assert engine.counters.faults == 1


def test_a_floor_at_the_first_head_is_kept_though_late(run, make_engine, prompts):
    """With floor `first_head` a late request gets one head, then leaves."""
    (job,) = run(make_engine(), prompts[:1], deadline_s=-1.0, quality_floor="first_head")
    assert (job.exit_layer == 1).all()
    assert (job.made_by == DEADLINE).all()


def test_a_floor_at_the_final_head_forbids_everything_else(run, make_engine, prompts):
    """With floor `final_head` neither confidence nor a missed deadline ends a request early."""
    (job,) = run(make_engine(0.0), prompts[:1], deadline_s=-1.0, quality_floor="final_head")
    assert (job.exit_layer == LAYERS).all()
    assert (job.made_by == FINAL).all()


def test_a_request_without_candidates_is_answered_at_once(make_engine, make_prompt, source):
    """No candidates, no work: the next step returns the empty answer."""
    engine = make_engine()
    job = source.job(make_prompt(3, []))
    engine.enqueue(job)
    assert engine.busy
    assert engine.step(source) == [job]
    assert engine.trace(make_prompt(3, [])).logits.shape == (0, 3)


def test_a_prompt_larger_than_a_batch_is_scored_in_several(run, make_engine, make_prompt, source):
    """A request beyond the batch bound passes in parts that fit, its scores unchanged and answered once."""
    prompt = make_prompt(6, [5] * 9)
    engine = make_engine(max_batch_tokens=24)
    engine.enqueue(source.job(prompt))
    engine._prepare(source, 1e9)
    assert [part.tokens for part in engine._queue._prepared] == [21, 21, 21]
    (job,) = run(make_engine(max_batch_tokens=24), [prompt])
    np.testing.assert_allclose(job.ctr, make_engine().trace(prompt).ctr[:, -1], atol=1e-5)
    np.testing.assert_allclose(make_engine(max_batch_tokens=24).trace(prompt).ctr[:, -1], job.ctr, atol=1e-5)
    assert job.token_layers_run == job.token_layers_full


def test_parts_of_a_large_request_let_small_ones_in_between(make_engine, make_prompt, source, clock):
    """A small request with a somewhat later deadline is answered before the last part of a large one."""
    engine = make_engine(max_batch_tokens=64, costs=CostTable([64], np.ones((3, 1))))
    large = source.job(make_prompt(4, [6] * 80), deadline_s=clock.now_s + 100, arrived_s=clock.now_s)
    small = source.job(
        make_prompt(4, [6] * 2), deadline_s=clock.now_s + 104, arrived_s=clock.now_s, quality_floor="final_head"
    )
    for job in (large, small):
        engine.enqueue(job)
    order = []
    while engine.busy:
        order += engine.step(source)
    assert order == [small, large]


def test_evidence_is_fetched_when_a_requests_turn_comes(make_engine, make_prompt, source, clock):
    """What waits has no prompt: only so many tokens are prepared ahead, in the order of the deadlines."""
    engine = make_engine(prepare_ahead_tokens=20)
    jobs = [source.job(make_prompt(10, [5]), deadline_s=clock.now_s + at) for at in (9, 7, 8, 6)]
    for job in jobs:
        engine.enqueue(job)
    engine.step(source)
    assert source.prepared == [jobs[3], jobs[1]]
    assert engine.waiting == 2


@pytest.mark.parametrize("limit", [1_000_000, 3000])
def test_the_prefix_cache_changes_no_score(run, make_engine, make_prompt, limit):
    """Pages of one session share their prefix's keys and values, whether the cache is ample or constantly evicting."""
    pages = [make_prompt(12, [3, 4]) for _ in range(3)]
    session = [Prompt(pages[0].prefix, page.suffixes) for page in pages]
    engine = make_engine(prefix_cache_bytes=limit)
    for prompt in [*session, *pages, *session]:
        (job,) = run(engine, [prompt])
        np.testing.assert_allclose(job.ctr, make_engine().trace(prompt).ctr[:, -1], atol=1e-5)


def test_a_known_prefix_is_not_computed_again(run, make_engine, make_prompt):
    """The second page of a session executes its suffixes' tokens only, and counts as a hit."""
    first, second = make_prompt(12, [3, 4]), make_prompt(12, [2, 2])
    engine = make_engine(prefix_cache_bytes=1_000_000)
    run(engine, [first])
    (job,) = run(engine, [Prompt(first.prefix, second.suffixes)])
    assert job.token_layers_run == (LAYERS - 1) * 4 + 3 * 2
    assert job.token_layers_full == (LAYERS - 1) * 16 + 3 * 2
    assert (engine.counters.prefix_hits, engine.counters.prefix_misses) == (1, 1)


def test_a_prefix_known_to_some_depth_goes_on_from_there(run, make_engine, make_prompt):
    """Where the first page left early, the second computes the prefix for the stages that the cache lacks."""
    first, second = make_prompt(12, [3, 4]), make_prompt(12, [2, 2])
    engine = make_engine(0.0, prefix_cache_bytes=1_000_000)
    run(engine, [first])  # to the first head
    engine.controller = FixedThreshold(NEVER)
    page = Prompt(first.prefix, second.suffixes)
    (job,) = run(engine, [page])
    assert job.token_layers_run == (LAYERS - 1) * 16 + 3 * 2
    np.testing.assert_allclose(job.ctr, make_engine().trace(page).ctr[:, -1], atol=1e-5)


def test_a_changed_history_is_another_prefix(run, make_engine, make_prompt):
    """When the user's history has changed in between, nothing of the old prefix is used."""
    page = make_prompt(12, [3, 4])
    changed = make_prompt(12, [3, 4])
    engine = make_engine(prefix_cache_bytes=1_000_000)
    run(engine, [page])
    (job,) = run(engine, [Prompt(changed.prefix, page.suffixes)])
    assert engine.counters.prefix_hits == 0
    expected = make_engine().trace(Prompt(changed.prefix, page.suffixes))
    np.testing.assert_allclose(job.ctr, expected.ctr[:, -1], atol=1e-5)


def test_two_pages_in_one_batch_may_share_a_cached_prefix(run, make_engine, make_prompt):
    """Two requests that extend the same cached prefix in one batch do not disturb each other."""
    first, second = make_prompt(12, [3, 4]), make_prompt(12, [2, 2])
    pages = [first, Prompt(first.prefix, second.suffixes)]
    engine = make_engine(0.0, prefix_cache_bytes=1_000_000)
    run(engine, [first])
    engine.controller = FixedThreshold(NEVER)
    for job, page in zip(run(engine, pages), pages, strict=True):
        np.testing.assert_allclose(job.ctr, make_engine().trace(page).ctr[:, -1], atol=1e-5)


@pytest.mark.parametrize(("precision", "tolerance"), [("int8", 0.15), ("bfloat16", 0.15)])
def test_coarser_numbers_stay_close(make_engine, prompts, precision, tolerance):
    """int8 and bfloat16 move logits of this small random model by little against their spread."""
    exact, coarse = make_engine(), make_engine(precision=precision)
    expected = np.concatenate([exact.trace(prompt).logits for prompt in prompts])
    got = np.concatenate([coarse.trace(prompt).logits for prompt in prompts])
    assert np.abs(got - expected).max() < tolerance * expected.std()


def test_rotations_are_exact_in_any_number_format(make_engine):
    """Angles of far positions keep their last digits where weights are in bfloat16."""
    tables = [
        make_engine(precision=precision)._runner._weights.rotary.inv_freq for precision in ("float32", "bfloat16")
    ]
    assert torch.equal(*tables)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.15)])
def test_a_gpu_scores_what_the_cpu_scores(run, make_engine, prompts, precision, tolerance):
    """The same code on a CUDA device gives the same scores, within its number format."""
    on_cpu, on_gpu = make_engine(), make_engine(device="cuda", precision=precision, prefix_cache_bytes=1_000_000)
    for prompt, result in zip(prompts, run(on_gpu, prompts), strict=True):
        np.testing.assert_allclose(result.ctr, on_cpu.trace(prompt).ctr[:, -1], atol=tolerance)


def test_warm_up_fills_the_cost_table_for_every_stage(make_model, calibration):
    """Before warm-up nothing is predicted to take time; afterwards every stage is."""
    engine = ScoringEngine(make_model(), calibration, EngineSettings(max_batch_tokens=256, warm_up_rounds=1))
    assert engine.costs.seconds_to_end(0, 200) == 0
    engine.warm_up()
    assert all(engine.costs.seconds(stage, 200) > 0 for stage in range(3))


def test_every_stage_that_runs_keeps_the_cost_table_current(make_engine, source, prompts, clock, monkeypatch):
    """Stages that take ten times as long as measured are soon predicted to."""
    engine = make_engine(costs=CostTable([64], np.full((3, 1), 0.01)))
    run_stage = engine._runner.run

    def slow(batch):
        clock.now_s += 0.1
        return run_stage(batch)

    monkeypatch.setattr(engine._runner, "run", slow)
    for _ in range(60):
        engine.enqueue(source.job(prompts[0]))
        while engine.busy:
            engine.step(source)
    tokens = prompts[0].tokens
    assert [engine.costs.seconds(stage, tokens) for stage in range(3)] == pytest.approx([0.1] * 3, rel=0.05)


def test_costs_of_a_slow_time_that_is_over_are_not_believed_for_ever(make_engine, source, prompts, clock, monkeypatch):
    """Where every request would come too late no stage runs; then the first one is measured, at most once a second, and
    requests reach the heads again.
    """
    engine = make_engine(threshold=0.0, costs=CostTable([64], np.full((3, 1), 100.0)))
    run_stage, took_s, runs = engine._runner.run, [50.0], []

    def timed(batch):
        runs.append(clock.now_s)
        clock.now_s += took_s[0]
        return run_stage(batch)

    def answered_by():
        job = source.job(prompts[0], arrived_s=clock.now_s, deadline_s=clock.now_s + 5.0, budget_s=5.0)
        engine.enqueue(job)
        while engine.busy:
            engine.step(source)
        return set(job.made_by.tolist())

    monkeypatch.setattr(engine._runner, "run", timed)
    assert answered_by() == answered_by() == {GRAPH}
    assert len(runs) == 1
    took_s[0] = 0.01
    clock.now_s += 1.0
    assert answered_by() == {GRAPH}
    assert len(runs) == 2
    assert answered_by() == {CONFIDENT}


def test_warm_up_prices_prefixes_as_unknown(run, make_engine, make_prompt):
    """Its made-up prompts begin alike; the prefix cache neither helps them nor keeps them."""
    engine = make_engine(prefix_cache_bytes=1_000_000, max_batch_tokens=512, warm_up_rounds=2)
    engine.warm_up()
    run(engine, [make_prompt(5, [3])])
    assert (engine.counters.prefix_hits, engine.counters.prefix_misses) == (0, 1)
    assert len(engine._runner.cache) == 1


@pytest.mark.parametrize(("prefix", "suffixes"), [(0, [3]), (4, [3, 0])])
def test_a_prompt_with_an_empty_part_is_left_to_the_graph(run, make_engine, make_prompt, prefix, suffixes):
    """A prefix or suffix without tokens has no last token to read: counted as a fault, answered by the graph."""
    engine = make_engine()
    (job,) = run(engine, [make_prompt(prefix, suffixes)])
    assert (job.made_by == GRAPH).all()
    assert engine.counters.faults == 1
    with pytest.raises(ValueError, match="at least one token"):
        engine.trace(make_prompt(prefix, suffixes))


def test_a_calibration_for_another_model_is_refused(make_model, calibration):
    """Heads and calibration must match in number."""
    two = replace(
        calibration,
        slopes=np.ones(2),
        intercepts=np.zeros(2),
        confidence_weights=calibration.confidence_weights[:1],
    )
    with pytest.raises(ValueError, match="2 heads"):
        ScoringEngine(make_model(), two, EngineSettings())
