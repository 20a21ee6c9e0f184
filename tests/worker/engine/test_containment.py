"""Nothing that a request or a batch does ends the engine, and nothing that fails costs anyone else an answer."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import structlog.testing
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.prompt import Prompt
from worker.budget.controller import FixedThreshold
from worker.engine.engine import ScoringEngine
from worker.engine.scoring_job import FINAL, GRAPH, ScoringJob
from worker.engine.settings import EngineSettings
from worker.engine.transformer.runner import StageRunner

GRAPH_RATE = 0.25
NEVER = 2.0
MIDDLING = 0.8
"""An exit threshold that some candidates reach at an early head, and others do not."""
STAGES = 3


def unknown_token(prompt):
    """The embedding has no such row: the whole batch raises."""
    sequence = prompt.suffixes[0]
    words = sequence.token_ids.copy()
    words[-1] = 10_000
    return Prompt(prompt.prefix, [msgspec.structs.replace(sequence, token_ids=words), *prompt.suffixes[1:]])


def no_number_in_prefix(prompt):
    """All its candidates' logits are no numbers."""
    values = np.full_like(prompt.prefix.soft_values, np.nan)
    return Prompt(msgspec.structs.replace(prompt.prefix, soft_values=values), prompt.suffixes)


def no_number_in_first_suffix(prompt):
    """Only its first candidate's logit is no number."""
    sequence = prompt.suffixes[0]
    bad = msgspec.structs.replace(sequence, soft_values=np.full_like(sequence.soft_values, np.inf))
    return Prompt(prompt.prefix, [bad, *prompt.suffixes[1:]])


POISONS = [unknown_token, no_number_in_prefix, no_number_in_first_suffix]


@st.composite
def batches(draw):
    """Shapes of prompts, by length of the prefix and of each suffix, the place of a poison, exit threshold, caching."""
    suffixes = st.lists(st.integers(2, 6), min_size=1, max_size=5)
    shapes = draw(st.lists(st.tuples(st.integers(1, 12), suffixes), max_size=6))
    place = draw(st.integers(0, len(shapes)))
    return shapes, place, draw(st.sampled_from([MIDDLING, NEVER])), draw(st.booleans())


def _engine(make_model, calibration, threshold=NEVER, **changes):
    fields = {"prefix_cache_bytes": 0, "max_batch_tokens": 512} | changes
    return ScoringEngine(make_model(), calibration, EngineSettings(**fields), FixedThreshold(threshold), clock=_clock)


def _clock():
    return 1000.0


def _answers(engine, source, prompts):
    jobs = [source.job(prompt) for prompt in prompts]
    for job in jobs:
        engine.enqueue(job)
    for _ in range(1000):
        if not engine.busy:
            return jobs
        engine.step(source)
    raise AssertionError("the engine does not come to an end")


@pytest.fixture
def engines(make_model, calibration):
    """By exit threshold and whether prefixes are cached."""
    return {
        (threshold, caching): _engine(make_model, calibration, threshold, prefix_cache_bytes=caching * 1_000_000)
        for threshold in (MIDDLING, NEVER)
        for caching in (False, True)
    }


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=batches(), poison=st.sampled_from(POISONS))
def test_a_poison_prompt_costs_nobody_else_anything(engines, make_prompt, source, batch, poison):
    """Wherever it stands in a batch: its own candidates get the graph's rate, all others exactly what they get
    without it, and so do the same prompts afterwards.
    """
    shapes, place, engine = batch[0], batch[1], engines[batch[2:]]
    prompts, poisoned = [make_prompt(*shape) for shape in shapes], poison(make_prompt(5, [3, 4, 2]))
    suffering = slice(0, 1) if poison is no_number_in_first_suffix else slice(None)
    faults = engine.counters.faults

    jobs = _answers(engine, source, [*prompts[:place], poisoned, *prompts[place:]])
    bad = jobs.pop(place)
    without = _answers(engine, source, prompts)

    assert (bad.made_by[suffering] == GRAPH).all()
    assert (bad.ctr[suffering] == GRAPH_RATE).all()
    assert bad.unanswered == 0
    assert engine.counters.faults == faults + 1
    for job, other in zip(jobs, without, strict=True):
        np.testing.assert_allclose(job.ctr, other.ctr, atol=1e-5)
        np.testing.assert_allclose(job.confidence, other.confidence, atol=1e-4)
        np.testing.assert_array_equal(job.made_by, other.made_by)
        np.testing.assert_array_equal(job.exit_layer, other.exit_layer)


class FaultyRunner(StageRunner):
    """Runs out of memory at the end of one stage whenever a certain job is in the batch."""

    def __init__(self, model, settings, stage) -> None:
        super().__init__(model, settings)
        self.stage = stage
        self.poison: ScoringJob | None = None

    def _commit(self, parts, *computed):
        if parts[0].depth == self.stage and any(part.job is self.poison for part in parts):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        super()._commit(parts, *computed)


@pytest.mark.parametrize("stage", range(STAGES))
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("cache_bytes", [0, 1_000_000])
def test_a_stage_that_fails_is_halved_down_to_the_part_that_makes_it_fail(
    make_model, calibration, make_prompt, source, stage, place, cache_bytes
):
    """At any depth, with pages of one session that share a cached prefix among the others; logged with the place."""
    first = make_prompt(12, [3, 4])
    prompts = [make_prompt(9, [4, 6]), first, Prompt(first.prefix, [*first.suffixes[::-1]]), make_prompt(3, [5, 2])]
    engine = _engine(make_model, calibration, prefix_cache_bytes=cache_bytes)
    engine._runner = FaultyRunner(make_model(), engine._settings, stage)
    _answers(engine, source, [first])  # its prefix is in the cache now
    jobs = [source.job(prompt) for prompt in prompts]
    engine._runner.poison = jobs[place]
    for job in jobs:
        engine.enqueue(job)
    with structlog.testing.capture_logs() as lines:
        while engine.busy:
            engine.step(source)

    exact = _engine(make_model, calibration)
    for number, (job, prompt) in enumerate(zip(jobs, prompts, strict=True)):
        failed = number == place
        np.testing.assert_array_equal(job.made_by, GRAPH if failed else FINAL)
        np.testing.assert_allclose(job.ctr, GRAPH_RATE if failed else exact.trace(prompt).ctr[:, -1], atol=1e-5)
    assert engine.counters.faults == len(lines) == 1
    assert "can't allocate memory" in lines[0]["reason"]


@pytest.mark.parametrize("cache_bytes", [0, 1_000_000])
def test_memory_that_is_short_for_a_moment_costs_no_answer(
    make_model, calibration, make_prompt, source, monkeypatch, cache_bytes
):
    """Whichever copy of a stage fails: the batch goes in two halves, and every head's answer is right."""
    first = make_prompt(12, [3, 4])
    prompts = [make_prompt(9, [4, 6]), first, Prompt(first.prefix, [*first.suffixes[::-1]]), make_prompt(3, [5, 2])]
    exact = _engine(make_model, calibration)
    left = [1_000_000]

    def short_of_memory(copy):
        def may_fail(*arguments, **more):
            left[0] -= 1
            if left[0] == -1:
                raise MemoryError("std::bad_alloc")
            return copy(*arguments, **more)

        return may_fail

    monkeypatch.setattr(torch.Tensor, "clone", short_of_memory(torch.Tensor.clone))
    monkeypatch.setattr(torch, "stack", short_of_memory(torch.stack))
    failures = 0
    for failing_copy in range(60):
        engine = _engine(make_model, calibration, prefix_cache_bytes=cache_bytes)
        left[0] = failing_copy
        jobs = _answers(engine, source, prompts)
        failures += left[0] < 0
        left[0] = 1_000_000
        for job, prompt in zip(jobs, prompts, strict=True):
            np.testing.assert_allclose(job.ctr, exact.trace(prompt).ctr[:, -1], atol=1e-5)
        assert engine.counters.faults == 0
    assert failures > 20 or not cache_bytes


def test_a_prefix_that_went_bad_in_the_cache_is_used_once(make_model, calibration, make_prompt, source):
    """Values that are no numbers cost one page its heads; the next computes the prefix anew and is right."""
    first = make_prompt(12, [3, 4])
    engine = _engine(make_model, calibration, prefix_cache_bytes=1_000_000)
    _answers(engine, source, [first])
    [(known, _)] = engine._runner.cache._states.values()
    with torch.inference_mode():
        known.layers[1][1].fill_(float("nan"))

    [bad] = _answers(engine, source, [first])
    [good] = _answers(engine, source, [first])

    assert (bad.made_by == GRAPH).all()
    np.testing.assert_allclose(good.ctr, engine.trace(first).ctr[:, -1], atol=1e-5)


def test_a_candidate_without_a_number_leaves_its_prefix_usable(make_model, calibration, make_prompt, source):
    """The rest of its request goes on to the final head, past the stage in which it failed."""
    prompt = make_prompt(12, [3, 4, 5])
    values = np.full_like(prompt.suffixes[1].soft_values, np.nan)
    bad = msgspec.structs.replace(prompt.suffixes[1], soft_values=values)
    engine = _engine(make_model, calibration, prefix_cache_bytes=1_000_000)
    [job] = _answers(engine, source, [Prompt(prompt.prefix, [prompt.suffixes[0], bad, prompt.suffixes[2]])])

    assert job.made_by.tolist() == [FINAL, GRAPH, FINAL]
    np.testing.assert_allclose(job.ctr[[0, 2]], engine.trace(prompt).ctr[[0, 2], -1], atol=1e-5)


class FaultyController(FixedThreshold):
    """Fails so many times."""

    def __init__(self, failures: int) -> None:
        super().__init__(NEVER)
        self.failures = failures

    def update(self, now_s, demands):  # noqa: ARG002 - see `Threshold`
        self.failures -= 1
        if self.failures >= 0:
            raise ZeroDivisionError("a fault")
        return self.threshold


@pytest.mark.parametrize("failures", [1, 1000])
def test_a_fault_that_no_part_can_be_blamed_for_is_answered_from_the_graph(
    make_model, calibration, make_prompt, source, failures
):
    """Once or for ever: everything in the queue gets the graph's rate, each request is handed back once; what comes
    after a fault that passes gets its heads.
    """
    engine = _engine(make_model, calibration)
    engine.controller = FaultyController(failures)
    jobs = [source.job(make_prompt(4, [3] * 5)) for _ in range(3)]
    for job in jobs:
        engine.enqueue(job)
    handed_back = []
    while engine.busy:
        handed_back += engine.step(source)
    assert handed_back == jobs
    assert all((job.made_by == GRAPH).all() for job in jobs)

    [later] = _answers(engine, source, [make_prompt(4, [3])])
    assert (later.made_by == (FINAL if failures == 1 else GRAPH)).all()


def test_a_request_that_the_queue_cannot_take_is_answered_from_the_graph(make_model, calibration, make_prompt, source):
    """Whatever is wrong with it, it is answered."""
    engine = _engine(make_model, calibration)
    job = source.job(make_prompt(4, [3]))
    job.due_s = "soon"  # a fault of our own making
    engine.enqueue(job)

    assert engine.step(source) == [job]
    assert (job.made_by == GRAPH).all()


def test_without_a_graph_score_the_base_rate_answers(make_model, calibration, make_prompt, source, monkeypatch):
    """A poison request whose graph score fails too: a finite, calibrated rate, the one of average features."""
    known = replace(calibration, graph_bias=-2.0)
    engine = _engine(make_model, known)

    def failing(*_):
        raise RuntimeError("a fault")

    monkeypatch.setattr(source, "graph_ctr", failing)
    monkeypatch.setattr(source, "prepare", failing)
    [job] = _answers(engine, source, [make_prompt(4, [3, 2])])

    np.testing.assert_allclose(job.ctr, 1 / (1 + np.exp(2.0)))
    assert (job.made_by == GRAPH).all()
    assert engine.counters.faults == 2


@pytest.mark.parametrize("suffixes", [0, 1, 3])
def test_a_prompt_for_another_number_of_candidates_is_a_fault(make_model, calibration, make_prompt, source, suffixes):
    """Two were asked for: both get the graph's rate, none waits for ever."""
    engine = _engine(make_model, calibration)
    source.prepare = lambda _job, _places: make_prompt(4, [3] * suffixes)
    [job] = _answers(engine, source, [make_prompt(4, [3, 3])])

    assert (job.made_by == GRAPH).all()
    assert engine.counters.faults == 1


def test_ready_made_prompts_that_fail_are_an_error(
    make_model,
    calibration,
    make_prompt,
):
    """An evaluation must not take made-up rates for the model's."""
    poisoned = unknown_token(make_prompt(5, [3]))
    with pytest.raises(RuntimeError, match="1 of 2 prompts"):
        _engine(make_model, calibration).score([make_prompt(3, [2]), poisoned])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_never_recorded(bad):
    """Neither as a rate nor as a confidence; what stood there stays."""
    job = ScoringJob(2)
    job.answer(np.array([0]), 0.5, 1, 0.5, FINAL)
    with pytest.raises(ValueError, match="finite"):
        job.answer(np.arange(2), bad, 1, 0.5, FINAL)
    with pytest.raises(ValueError, match="finite"):
        job.answer(np.arange(2), 0.5, 1, bad, FINAL)
    assert (job.ctr[0], job.unanswered) == (0.5, 1)
