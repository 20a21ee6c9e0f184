"""A long prefix is computed in chunks: scores stay, others have their turn in between, and what fails fails alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from models.prompt import Prompt
from models.prompt_batch import collate
from tests.worker.engine.conftest import EXIT_LAYERS, VOCABULARY
from tests.worker.engine.test_prefix_reuse import AMPLE, CLOSE, NEVER, THRESHOLDS, batches, page, prefix_of
from worker.budget.controller import FixedThreshold
from worker.engine import prefix
from worker.engine.engine import ScoringEngine
from worker.engine.part import Part
from worker.engine.prefill import PrefixChunk, chunk_due, gap_due
from worker.engine.prefix import STRETCH_TOKENS, KnownPrefix, Stretch, stretches_of, unnamed_stretches
from worker.engine.scoring_job import FINAL, GRAPH
from worker.engine.settings import EngineSettings
from worker.engine.timeline import Timeline

LONG = 3 * STRETCH_TOKENS + 40
EVICTING = 12_000
LAYERS = EXIT_LAYERS[-1]


@pytest.fixture
def make_engine(make_model, calibration):
    """Engines with the same small model, by the tokens of a step and bytes of the cache."""

    def make(step_tokens: int = 8_192, cache_bytes: int = 0, **changes: object) -> ScoringEngine:
        fields = EngineSettings(prefix_cache_bytes=cache_bytes, max_batch_tokens=step_tokens, **changes)
        return ScoringEngine(make_model(), calibration, fields, FixedThreshold(NEVER), clock=lambda: 1000.0)

    return make


@pytest.fixture
def short_stretches(monkeypatch) -> None:
    """Stretches of three tokens, so that short prompts have many."""
    monkeypatch.setattr(prefix, "STRETCH_TOKENS", 3)


@pytest.fixture
def chunking(make_engine) -> list[ScoringEngine]:
    """Engines that cut prefixes of a dozen tokens: without a cache, with one, and with one that constantly evicts."""
    return [make_engine(step_tokens, cache_bytes) for step_tokens, cache_bytes in ((4, 0), (11, AMPLE), (4, EVICTING))]


@pytest.mark.usefixtures("short_stretches")
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches)
def test_scores_are_those_of_prompts_that_are_not_cut(make_engine, chunking, batches):
    """Batch after batch, some prefixes kept to the first head and some to the last, stretches evicted one by one:
    rates, confidences and exits are those of the engine that runs every prompt as a whole.
    """
    plain = make_engine()
    for prompts, threshold in batches:
        plain.controller = FixedThreshold(threshold)
        expected = plain.score(prompts)
        for engine in chunking:
            engine.controller = FixedThreshold(threshold)
            for job, other in zip(engine.score(prompts), expected, strict=True):
                np.testing.assert_allclose(job.ctr, other.ctr, atol=CLOSE)
                np.testing.assert_array_equal(job.exit_layer, other.exit_layer)
                np.testing.assert_allclose(job.confidence, other.confidence, atol=10 * CLOSE)
    assert chunking[-1].counters.prefix_bytes <= EVICTING


@pytest.mark.parametrize("cache_bytes", [0, AMPLE])
def test_a_long_prompt_scores_what_the_reference_scores(
    make_engine, make_model, make_prompt, source, calibration, cache_bytes
):
    """Several stretches a chunk, several chunks a stage; every token passes every layer once."""
    prompt = make_prompt(LONG, [5, 3, 7])
    engine = make_engine(2 * STRETCH_TOKENS, cache_bytes)
    job = source.job(prompt)
    job.timeline = Timeline()
    engine.enqueue(job)
    while engine.busy:
        engine.step(source)
    with torch.inference_mode():
        logits = make_model()(collate([prompt])).double().numpy()[:, -1]
    np.testing.assert_allclose(job.ctr, calibration.ctr(2, logits), atol=CLOSE)
    assert engine.counters.steps == 2 * len(EXIT_LAYERS)
    assert [(run.stage, len(run.places)) for run in job.timeline.stages] == [
        (0, 0),
        (0, 3),
        (1, 0),
        (1, 3),
        (2, 0),
        (2, 3),
    ]
    assert job.token_layers_run == job.token_layers_full == engine.counters.token_layers_run


def test_a_short_request_is_answered_while_a_long_prompt_is_being_run(make_engine, source, make_prompt):
    """It came later and both want the final head, but the long prompt steps back with every chunk."""
    engine = make_engine(STRETCH_TOKENS)
    long = source.job(make_prompt(LONG, [4, 2]), quality_floor="final_head", due_s=1001.0)
    engine.enqueue(long)
    engine.step(source)
    [part] = engine._queue._prepared
    assert part.prefix_tokens == LONG - STRETCH_TOKENS
    short = source.job(make_prompt(6, [3]), quality_floor="final_head", due_s=1001.0)
    engine._queue.costs = SecondsPerToken()
    engine.enqueue(short)
    answered = []
    for _ in range(100):
        answered += engine.step(source)
        if short in answered:
            break
    assert answered == [short]
    assert long.token_layers_run < long.token_layers_full / 2
    while engine.busy:
        answered += engine.step(source)
    assert answered == [short, long]
    assert (long.made_by == FINAL).all()


class SecondsPerToken:
    """A hundredth of a second a token and stage."""

    def seconds(self, stage, tokens):  # noqa: ARG002 - the same for every stage
        return tokens / 100

    def seconds_to_end(self, depth, tokens):
        return (len(EXIT_LAYERS) - depth) * tokens / 100

    def observe(self, stage, tokens, seconds):
        """Stays as it is."""


def test_a_chunk_that_fails_costs_nobody_else_an_answer(make_engine, make_prompt):
    """A word beyond the vocabulary, in the second chunk: that request is the graph's, the other is scored."""
    good, bad = make_prompt(LONG, [4, 2]), make_prompt(LONG, [3])
    bad.prefix.token_ids[STRETCH_TOKENS + 9] = VOCABULARY
    engine = make_engine(STRETCH_TOKENS)
    with pytest.raises(RuntimeError, match="1 of 2"):
        engine.score([bad, good])


def test_the_graph_answers_whose_chunk_failed(make_engine, source, make_prompt):
    """The part leaves the queue with all of its candidates."""
    prompt = make_prompt(LONG, [3, 2])
    prompt.prefix.token_ids[STRETCH_TOKENS + 9] = VOCABULARY
    job = source.job(prompt)
    engine = make_engine(STRETCH_TOKENS, AMPLE)
    engine.enqueue(job)
    while engine.busy:
        engine.step(source)
    assert (job.made_by == GRAPH).all()
    assert engine.counters.faults == 1


def test_a_history_that_has_grown_shares_its_beginning(make_engine, make_prompt):
    """Stretches before the change are known still."""
    old = make_prompt(LONG, [3])
    grown = Prompt(old.prefix.between(0, LONG - 5), old.suffixes)
    engine = make_engine(cache_bytes=AMPLE)
    engine.score([old])
    [job] = engine.score([grown])
    own = (LONG - 5) % STRETCH_TOKENS
    assert job.token_layers_run < (LAYERS - 1) * (own + STRETCH_TOKENS + 3)
    [expected] = make_engine().score([grown])
    np.testing.assert_allclose(job.ctr, expected.ctr, atol=CLOSE)


@pytest.mark.usefixtures("short_stretches")
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_counters_tell_a_prefix_once(make_engine, threshold):
    """As missed, though its later chunks find what its first ones have left in the cache."""
    engine = make_engine(4, AMPLE)
    engine.controller = FixedThreshold(threshold)
    engine.score([page(0, 0, [3])])
    counters = engine.counters
    assert (counters.prefix_hits, counters.prefix_partial_hits, counters.prefix_misses) == (0, 0, 1)


@pytest.mark.usefixtures("short_stretches")
def test_stretches_are_the_prefix():
    """None is longer than it may be, words and soft tokens keep their places, and each has a name of its own."""
    whole = prefix_of(0, 2, 8)
    for stretches in (stretches_of(whole), unnamed_stretches(whole)):
        assert max(map(len, stretches)) == 3
        words = np.concatenate([stretch.sequence.token_ids for stretch in stretches])
        starts = np.cumsum([0, *map(len, stretches)])
        places = [stretch.sequence.soft_positions + start for stretch, start in zip(stretches, starts, strict=False)]
        np.testing.assert_array_equal(words, whole.token_ids)
        np.testing.assert_array_equal(np.concatenate(places), whole.soft_positions)
        values = np.concatenate([stretch.sequence.soft_values for stretch in stretches])
        np.testing.assert_array_equal(values, whole.soft_values)
    named = stretches_of(whole)
    assert [len(stretch) for stretch in named] == [3, 3, 2, 3, 3, 1]  # the eight words that all users share, the rest
    assert len({stretch.key for stretch in named}) == len(named)
    assert unnamed_stretches(whole.between(0, 0))[0].sequence.token_ids.tolist() == []


def part_of(known: list[int], suffixes: int = 4) -> Part:
    """A part whose prefix is stretches of three tokens, each known to so many stages."""
    part = Part.of(page(0, 0, [suffixes]))
    sequence = part.prefix.between(0, 3)
    part.stretches = [Stretch(sequence, known=KnownPrefix(stages=stages)) for stages in known]
    part.count_tokens()
    return part


def places(part: Part, chunk: list[Stretch]) -> list[int]:
    """Which stretches of the part are in a chunk."""
    return [part.stretches.index(stretch) for stretch in chunk]


@pytest.mark.parametrize(
    ("known", "most", "expected"),
    [
        ([0, 0, 0], 13, []),  # fits as a whole
        ([0, 0, 0], 12, [0, 1, 2]),
        ([0, 0, 0], 8, [0, 1]),
        ([0, 0, 0], 1, [0]),  # one at least
        ([1, 0, 0], 9, [1, 2]),
        ([1, 0, 0], 10, []),
        ([1, 1, 1], 1, []),  # candidates are not cut
        ([0, 1, 0], 100, [0]),  # no neighbours
        ([0, 1, 0, 0], 5, [0]),
        ([1, 0, 1], 100, []),
    ],
)
def test_a_chunk_is_what_fits_of_the_first_unknown_neighbours(known, most, expected):
    """Candidates come with the last of the prefix, where both fit a step."""
    part = part_of(known)
    assert places(part, chunk_due(part, most)) == expected


def test_a_prefix_that_is_little_beside_its_candidates_runs_with_them():
    """A step for it alone would gain nobody a turn."""
    assert chunk_due(part_of([0, 0], suffixes=24), 10) == []
    assert len(chunk_due(part_of([0, 0], suffixes=23), 10)) == 2


def test_gaps_are_closed_before_a_batch():
    """Of unknown stretches with known ones between them the first neighbours; else none."""
    gapped = part_of([0, 0, 1, 0])
    assert places(gapped, gap_due(gapped)) == [0, 1]
    for known in ([0, 0], [1, 0], [1, 1], [0, 1]):
        assert gap_due(part_of(known)) == []


def test_a_chunk_lies_where_its_first_stretch_does():
    """As a segment of a batch: rows, positions, and what they attend to."""
    part = part_of([1, 1, 0, 0, 0])
    chunk = PrefixChunk(part, part.stretches[2:4])
    assert (chunk.prefix_start, chunk.prefix_rows, chunk.prefix_length) == (6, 6, 12)
    assert chunk.stretches == part.stretches[:4]
    assert [len(sequence) for sequence in chunk.token_sequences()] == [3, 3]
    assert len(chunk.suffix_lengths) == 0


@pytest.mark.usefixtures("short_stretches")
@pytest.mark.parametrize("cache_bytes", [0, AMPLE])
@pytest.mark.parametrize("stages", [(1,), (2,), (1, 2), (0, 2)])
def test_any_stage_can_be_the_one_that_is_cut(make_engine, cache_bytes, stages):
    """What a stage takes decides: a part goes into chunks, and back, with the rows that it has for itself."""
    prompt = page(0, 2, [3, 4])
    runner = make_engine(cache_bytes=cache_bytes)._runner
    part = Part.of(prompt)
    runner.look_up(part)
    for stage in range(len(EXIT_LAYERS)):
        if stage in stages:
            assert runner.fill(part, part.stretches[:2]) == 6
            assert runner.fill(part, part.stretches[2:3]) == len(part.stretches[2])
            assert part.prefix_tokens == sum(map(len, part.stretches[3:]))
        logits, _ = runner.run([part])
        part.pass_head(logits)
    np.testing.assert_allclose(part.logits, make_engine().trace(prompt).logits, atol=10 * CLOSE)


@pytest.mark.usefixtures("short_stretches")
def test_stretches_with_known_ones_between_them_are_computed_one_after_the_other(make_engine):
    """The cache has lost the second and the fifth of six: only these are computed, each with what stands before it."""
    first, second = page(0, 2, [3, 4]), page(0, 2, [2, 5])
    engine = make_engine(cache_bytes=AMPLE)
    engine.score([first])
    gone = [stretches_of(first.prefix)[index] for index in (1, 4)]
    for stretch in gone:
        engine._runner.cache.forget(stretch.key)
    [job] = engine.score([second])
    [expected] = make_engine().score([second])
    np.testing.assert_allclose(job.ctr, expected.ctr, atol=CLOSE)
    assert job.token_layers_run == (LAYERS - 1) * (sum(map(len, gone)) + 7) + len(EXIT_LAYERS) * 2
