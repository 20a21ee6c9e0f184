"""The engine as a whole: what leaves when, and that nothing but time is saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.calibration import CONFIDENCE_FEATURES, ExitCalibration
from models.prompt import Prompt
from models.prompt_batch import collate
from worker.engine.cost import CostTable
from worker.engine.engine import ScoringEngine
from worker.engine.records import (
    CONFIDENT,
    DEADLINE,
    FINAL,
    GRAPH,
    EngineResult,
    EngineSettings,
    Work,
)

NEVER = 2.0
"""An exit threshold that no confidence reaches."""
MIDDLING = 0.5
"""One that some candidates of this file's prompts reach at the first head, some at the second, some never."""
LAYERS = 4
FOREVER_S = 1e9

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
    """Engines with the same small model, by settings."""

    def make(**settings: object) -> ScoringEngine:
        return ScoringEngine(make_model(), calibration, EngineSettings(**{"prefix_cache_bytes": 0} | settings), clock)

    return make


@pytest.fixture
def prompts(make_prompt) -> list[Prompt]:
    """Three requests of different shapes."""
    return [make_prompt(9, [4, 6, 1, 5]), make_prompt(3, [5, 2]), make_prompt(17, [3] * 6)]


def run(engine: ScoringEngine, prompts: list[Prompt], threshold: float, **work: object) -> list[EngineResult]:
    """Submit all prompts at once and step until they are answered, in the order of submission."""
    for key, prompt in enumerate(prompts):
        engine.submit(Work(key, prompt, **{"deadline_s": FOREVER_S} | work))
    results = []
    while engine.busy:
        results += engine.step(threshold, 0.0)
    return sorted(results, key=lambda result: result.key)


def test_at_full_depth_the_batch_scores_what_each_request_scores_alone(make_engine, prompts):
    """Packing several requests changes no score."""
    together = run(make_engine(), prompts, NEVER)
    engine = make_engine()
    for result, prompt in zip(together, prompts, strict=True):
        np.testing.assert_allclose(result.ctr, engine.trace(prompt).ctr[:, -1], atol=1e-5)
        assert (result.made_by == FINAL).all()
        assert (result.exit_layer == LAYERS).all()
        assert (result.confidence == 1).all()
        assert result.token_layers_run == result.token_layers_full


def test_early_answers_are_those_of_their_head(make_engine, prompts):
    """Whoever leaves early has the rate and the confidence of the first head whose confidence reached the threshold."""
    engine = make_engine()
    for result, prompt in zip(run(engine, prompts, MIDDLING), prompts, strict=True):
        trace = engine.trace(prompt)
        heads = np.argmax(trace.confidence >= MIDDLING, axis=1)
        rows = np.arange(len(heads))
        np.testing.assert_allclose(result.ctr, trace.ctr[rows, heads], atol=1e-5)
        np.testing.assert_allclose(result.confidence, trace.confidence[rows, heads], atol=1e-5)
        np.testing.assert_array_equal(result.exit_layer, np.array([1, 3, 4])[heads])
        np.testing.assert_array_equal(result.made_by, np.where(heads == 2, FINAL, CONFIDENT))


def test_the_threshold_decides_between_heads(make_engine, prompts):
    """The prompts of this file do use every head at a middling threshold, so the tests above see all cases."""
    layers = np.concatenate([result.exit_layer for result in run(make_engine(), prompts, MIDDLING)])
    assert set(layers) == {1, 3, 4}


def test_token_layers_are_counted_as_executed(make_engine, prompts):
    """A token counts for the layers that it passed before its candidate left, a prefix before the last one left.

    Of the layer before a head only the answers count, once for every head reached.
    """
    for result, prompt in zip(run(make_engine(), prompts, MIDDLING), prompts, strict=True):
        lengths = np.array([len(suffix) for suffix in prompt.suffixes])
        passed = (lengths * (result.exit_layer - 1)).sum() + len(prompt.prefix) * (result.exit_layer.max() - 1)
        answers = np.searchsorted([1, 3, 4], result.exit_layer) + 1
        assert result.token_layers_run == passed + answers.sum()
        assert result.token_layers_full == (LAYERS - 1) * (len(prompt.prefix) + lengths.sum()) + 3 * len(lengths)


def test_rows_of_those_who_left_are_gone(make_engine, prompts):
    """After an exit the next stage gets only the prefix and the suffixes that are left."""
    engine = make_engine()
    for key, prompt in enumerate(prompts):
        engine.submit(Work(key, prompt, FOREVER_S))
    engine.step(MIDDLING, 0.0)
    flights = [flight for flight, _ in engine._flights.values()]
    assert 0 < sum(len(flight.candidates) for flight in flights) < sum(len(prompt.suffixes) for prompt in prompts)
    assert sorted(engine.load().suffix_tokens) == sorted(flight.suffix_hidden.shape[0] for flight in flights)
    for flight in flights:
        expected = sum(len(flight.prompt.suffixes[candidate]) for candidate in flight.candidates)
        assert flight.suffix_hidden.shape[0] == expected


def test_everyone_leaves_at_the_first_head_when_nothing_is_asked_for(make_engine, prompts):
    """At threshold zero a single step answers everything, at the depth of the first head."""
    engine = make_engine()
    for key, prompt in enumerate(prompts):
        engine.submit(Work(key, prompt, FOREVER_S))
    results = engine.step(0.0, 0.0)
    assert len(results) == 3
    assert all((result.exit_layer == 1).all() for result in results)
    assert not engine.busy


def test_a_request_joins_those_at_its_depth(make_engine, prompts):
    """A request that comes while another stands at a head catches up and both go on in one batch, scores unchanged."""
    engine = make_engine()
    engine.submit(Work(0, prompts[0], deadline_s=1050.0))
    engine.step(NEVER, 0.0)
    engine.submit(Work(1, prompts[1], deadline_s=1020.0))  # more urgent: runs its first stage next
    engine.step(NEVER, 0.0)
    assert engine.load().depth.tolist() == [1, 1]
    engine.step(NEVER, 0.0)
    assert engine.load().depth.tolist() == [2, 2]
    results = sorted(engine.step(NEVER, 0.0), key=lambda result: result.key)
    for result, prompt in zip(results, prompts[:2], strict=True):
        np.testing.assert_allclose(result.ctr, engine.trace(prompt).ctr[:, -1], atol=1e-5)


def test_out_of_time_the_deepest_head_answers(make_engine, prompts):
    """At its deadline a request is answered by the head it has reached, and marked so."""
    engine = make_engine()
    engine.submit(Work(0, prompts[0], deadline_s=5.0))
    engine.step(NEVER, now_s=0.0)
    (result,) = engine.step(NEVER, now_s=6.0)
    trace = engine.trace(prompts[0])
    np.testing.assert_allclose(result.ctr, trace.ctr[:, 0], atol=1e-5)
    np.testing.assert_allclose(result.confidence, trace.confidence[:, 0], atol=1e-5)
    assert (result.made_by == DEADLINE).all()
    assert (result.exit_layer == 1).all()


def test_without_time_for_any_head_the_graph_must_answer(make_engine, prompts):
    """A request whose time is up before its first head comes back unscored, for the caller's graph score."""
    engine = make_engine()
    engine.submit(Work(0, prompts[0], deadline_s=5.0))
    (result,) = engine.step(NEVER, now_s=6.0)
    assert np.isnan(result.ctr).all()
    assert (result.made_by == GRAPH).all()
    assert (result.exit_layer == 0).all()
    assert result.token_layers_run == 0


def test_a_floor_at_the_first_head_is_kept_though_late(make_engine, prompts):
    """With floor `first_head` a late request gets one head, then leaves."""
    engine = make_engine()
    (result,) = run(engine, prompts[:1], NEVER, deadline_s=-1.0, quality_floor="first_head")
    assert (result.exit_layer == 1).all()
    assert (result.made_by == DEADLINE).all()


def test_a_floor_at_the_final_head_forbids_everything_else(make_engine, prompts):
    """With floor `final_head` neither confidence nor a missed deadline ends a request early."""
    (result,) = run(make_engine(), prompts[:1], 0.0, deadline_s=-1.0, quality_floor="final_head")
    assert (result.exit_layer == LAYERS).all()
    assert (result.made_by == FINAL).all()


def test_a_request_without_candidates_is_answered_at_once(make_engine, make_prompt):
    """No candidates, no work: the next step returns the empty answer."""
    engine = make_engine()
    engine.submit(Work(7, make_prompt(3, []), FOREVER_S))
    assert engine.busy
    (result,) = engine.step(NEVER, 0.0)
    assert result.key == 7
    assert result.ctr.shape == (0,)
    assert engine.trace(make_prompt(3, [])).logits.shape == (0, 3)


def test_large_requests_are_cut_into_parts(make_engine, make_prompt):
    """A request beyond the batch bound is scored in parts, its scores unchanged and answered once."""
    prompt = make_prompt(6, [5] * 9)
    engine = make_engine(max_batch_tokens=24)
    engine.submit(Work(0, prompt, FOREVER_S))
    assert len(engine.load().depth) == 3
    engine = make_engine(max_batch_tokens=24)
    (result,) = run(engine, [prompt], NEVER)
    np.testing.assert_allclose(result.ctr, make_engine().trace(prompt).ctr[:, -1], atol=1e-5)


def test_parts_of_a_large_request_let_small_ones_in_between(make_engine, make_prompt):
    """A small request with a somewhat later deadline is answered before the last part of a large one."""
    engine = make_engine(max_batch_tokens=64)
    engine._costs = _a_second_per_stage()
    engine.submit(Work(0, make_prompt(4, [6] * 80), deadline_s=1100.0))
    engine.submit(Work(1, make_prompt(4, [6] * 2), deadline_s=1104.0, quality_floor="final_head"))
    order = []
    while engine.busy:
        order += [result.key for result in engine.step(NEVER, 1000.0)]
    assert order == [1, 0]


def _a_second_per_stage():
    return CostTable([64], np.ones((3, 1)))


@pytest.mark.parametrize("limit", [1_000_000, 3000])
def test_the_prefix_cache_changes_no_score(make_engine, make_prompt, limit):
    """Pages of one session share their prefix's keys and values, whether the cache is ample or constantly evicting."""
    pages = [make_prompt(12, [3, 4]) for _ in range(3)]
    session = [Prompt(pages[0].prefix, page.suffixes) for page in pages]
    engine = make_engine(prefix_cache_bytes=limit)
    for prompt in [*session, *pages, *session]:
        (result,) = run(engine, [prompt], NEVER)
        np.testing.assert_allclose(result.ctr, make_engine().trace(prompt).ctr[:, -1], atol=1e-5)


def test_a_known_prefix_is_not_computed_again(make_engine, make_prompt):
    """The second page of a session executes its suffixes' tokens only, and counts as a hit."""
    first, second = make_prompt(12, [3, 4]), make_prompt(12, [2, 2])
    engine = make_engine(prefix_cache_bytes=1_000_000)
    run(engine, [first], NEVER)
    (result,) = run(engine, [Prompt(first.prefix, second.suffixes)], NEVER)
    assert result.token_layers_run == (LAYERS - 1) * 4 + 3 * 2
    assert result.token_layers_full == (LAYERS - 1) * 16 + 3 * 2
    assert (engine.counters.prefix_hits, engine.counters.prefix_misses) == (1, 1)


def test_a_prefix_known_to_some_depth_goes_on_from_there(make_engine, make_prompt):
    """Where the first page left early, the second computes the prefix for the stages that the cache lacks."""
    first, second = make_prompt(12, [3, 4]), make_prompt(12, [2, 2])
    engine = make_engine(prefix_cache_bytes=1_000_000)
    run(engine, [first], 0.0)  # to the first head
    page = Prompt(first.prefix, second.suffixes)
    (result,) = run(engine, [page], NEVER)
    assert result.token_layers_run == (LAYERS - 1) * 16 + 3 * 2
    np.testing.assert_allclose(result.ctr, make_engine().trace(page).ctr[:, -1], atol=1e-5)


def test_a_changed_history_is_another_prefix(make_engine, make_prompt):
    """When the user's history has changed in between, nothing of the old prefix is used."""
    page = make_prompt(12, [3, 4])
    changed = make_prompt(12, [3, 4])
    engine = make_engine(prefix_cache_bytes=1_000_000)
    run(engine, [page], NEVER)
    (result,) = run(engine, [Prompt(changed.prefix, page.suffixes)], NEVER)
    assert engine.counters.prefix_hits == 0
    expected = make_engine().trace(Prompt(changed.prefix, page.suffixes))
    np.testing.assert_allclose(result.ctr, expected.ctr[:, -1], atol=1e-5)


def test_two_pages_in_one_batch_may_share_a_cached_prefix(make_engine, make_prompt):
    """Two requests that extend the same cached prefix in one batch do not disturb each other."""
    first, second = make_prompt(12, [3, 4]), make_prompt(12, [2, 2])
    pages = [first, Prompt(first.prefix, second.suffixes)]
    engine = make_engine(prefix_cache_bytes=1_000_000)
    run(engine, [first], 0.0)
    for result, page in zip(run(engine, pages, NEVER), pages, strict=True):
        np.testing.assert_allclose(result.ctr, make_engine().trace(page).ctr[:, -1], atol=1e-5)


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
def test_a_gpu_scores_what_the_cpu_scores(make_engine, prompts, precision, tolerance):
    """The same code on a CUDA device gives the same scores, within its number format."""
    on_cpu, on_gpu = make_engine(), make_engine(device="cuda", precision=precision, prefix_cache_bytes=1_000_000)
    for prompt, result in zip(prompts, run(on_gpu, prompts, NEVER), strict=True):
        np.testing.assert_allclose(result.ctr, on_cpu.trace(prompt).ctr[:, -1], atol=tolerance)


def test_warm_up_fills_the_cost_table_for_every_stage(make_model, calibration):
    """After warm-up every stage has a positive price, and each stage run keeps it current."""
    engine = ScoringEngine(make_model(), calibration, EngineSettings(max_batch_tokens=256, warm_up_rounds=1))
    with pytest.raises(RuntimeError, match="warm_up"):
        _ = engine.cost_table
    engine.warm_up()
    assert engine.cost_table.stages == 3
    assert all(engine.cost_table.seconds(stage, 200) > 0 for stage in range(3))


def test_warm_up_prices_prefixes_as_unknown(make_engine, make_prompt):
    """Its made-up prompts begin alike; the prefix cache neither helps them nor keeps them."""
    engine = make_engine(prefix_cache_bytes=1_000_000, max_batch_tokens=512, warm_up_rounds=2)
    engine.warm_up()
    run(engine, [make_prompt(5, [3])], NEVER)
    assert (engine.counters.prefix_hits, engine.counters.prefix_misses) == (0, 1)
    assert len(engine._runner.cache) == 1


def test_load_lists_what_is_waiting_in_order(make_engine, prompts):
    """The controller sees tokens, depths and deadlines of everything in the engine, most urgent first."""
    engine = make_engine()
    engine.submit(Work(0, prompts[0], deadline_s=1100.0))
    engine.submit(Work(1, prompts[1], deadline_s=1050.0))
    load = engine.load()
    assert load.deadline_s.tolist() == [1050.0, 1100.0]
    assert load.prefix_tokens.tolist() == [3, 9]
    assert load.suffix_tokens.tolist() == [7, 16]
    assert load.depth.tolist() == [0, 0]


@pytest.mark.parametrize(("prefix", "suffixes"), [(0, [3]), (4, [3, 0])])
def test_empty_parts_are_refused(make_engine, make_prompt, prefix, suffixes):
    """A prefix or suffix without tokens has no last token to read and is refused at submission."""
    engine = make_engine()
    with pytest.raises(ValueError, match="at least one token"):
        engine.submit(Work(0, make_prompt(prefix, suffixes), FOREVER_S))
    assert not engine.busy


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
