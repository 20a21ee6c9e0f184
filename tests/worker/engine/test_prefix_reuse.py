"""Whatever is kept of prefixes between requests, and however deep: scores are those of an engine that keeps nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.prompt import Prompt
from models.token_sequence import SoftKind, TokenSequence
from tests.worker.engine.conftest import EXIT_LAYERS, VOCABULARY, WIDTH, random_sequence
from worker.budget.controller import FixedThreshold
from worker.engine.engine import ScoringEngine
from worker.engine.part import Part
from worker.engine.prefix import SHARED_TOKENS
from worker.engine.settings import EngineSettings

NEVER = 2.0
THRESHOLDS = (0.0, 0.88, NEVER)
"""All candidates leave at the first head, some at each head, none early."""
INSTRUCTIONS, USERS = 2, 3
LAYERS = EXIT_LAYERS[-1]
AMPLE = 10_000_000
CLOSE = 1e-5
"""Of rates, in float32: a prefix in two pieces adds up its attention in another order, which moves the seventh digit,
and four layers pass that on.
"""


def prefix_of(instruction: int, user: int, words: int) -> TokenSequence:
    """An instruction of so many words, then a user's soft token and history: the same for the same numbers."""
    random = np.random.default_rng([instruction, words])
    shared = random.integers(1, VOCABULARY, words)
    rest = random_sequence(np.random.default_rng([user, 1]), 4 + user, SoftKind.USER)
    token_ids = np.concatenate([shared, [0], rest.token_ids]).astype(np.int32)
    positions = np.concatenate([[0], rest.soft_positions + 1]).astype(np.int32) + words
    kinds = np.concatenate([[SoftKind.USER], rest.soft_kinds]).astype(np.int8)
    values = np.random.default_rng([user, 2]).standard_normal((len(positions), WIDTH)).astype(np.float32)
    return TokenSequence(token_ids, positions, kinds, values)


def page(instruction: int, user: int, suffixes: Sequence[int], words: int = SHARED_TOKENS) -> Prompt:
    """A user's page of candidates by the lengths of their suffixes."""
    random = np.random.default_rng([instruction, user, *suffixes])
    return Prompt(
        prefix_of(instruction, user, words),
        [random_sequence(random, length, SoftKind.STATISTICS) for length in suffixes],
    )


pages = st.builds(
    page,
    st.integers(0, INSTRUCTIONS - 1),
    st.integers(0, USERS - 1),
    st.lists(st.integers(2, 6), min_size=1, max_size=4),
    st.sampled_from([1, SHARED_TOKENS, SHARED_TOKENS + 5]),
)
batches = st.lists(
    st.tuples(st.lists(pages, min_size=1, max_size=4), st.sampled_from(THRESHOLDS)), min_size=1, max_size=5
)


@pytest.fixture
def make_engine(make_model, calibration):
    """Engines with the same small model, by bytes of the cache."""

    def make(cache_bytes: int, **changes: object) -> ScoringEngine:
        fields = EngineSettings(prefix_cache_bytes=cache_bytes, **changes)
        return ScoringEngine(make_model(), calibration, fields, FixedThreshold(NEVER), clock=lambda: 1000.0)

    return make


@pytest.fixture
def engines(make_engine):
    """Without a cache, with an ample one, and with one that constantly evicts."""
    return make_engine(0), make_engine(AMPLE), make_engine(12_000)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches)
def test_scores_are_those_without_a_cache(engines, batches):
    """Batch after batch, users and instructions mixed, some prefixes kept to the first head only and some to the last:
    rates, confidences and exits are those of the engine that computes everything anew.
    """
    plain, *keeping = engines
    for prompts, threshold in batches:
        for engine in engines:
            engine.controller = FixedThreshold(threshold)
        expected = plain.score(prompts)
        for engine in keeping:
            for job, other in zip(engine.score(prompts), expected, strict=True):
                np.testing.assert_allclose(job.ctr, other.ctr, atol=CLOSE)
                np.testing.assert_array_equal(job.exit_layer, other.exit_layer)
                np.testing.assert_allclose(job.confidence, other.confidence, atol=10 * CLOSE)
                assert job.token_layers_run <= other.token_layers_run
                assert job.token_layers_full == other.token_layers_full
    assert keeping[-1].counters.prefix_bytes <= 12_000


def test_the_instruction_is_computed_once_for_all_users(make_engine):
    """Another user's first page computes their own part of the prefix only; it is counted as a partial hit."""
    engine = make_engine(AMPLE)
    engine.score([page(0, 0, [3, 4])])
    [job] = engine.score([page(0, 1, [2, 2])])
    own = len(prefix_of(0, 1, SHARED_TOKENS)) - SHARED_TOKENS
    assert job.token_layers_run == (LAYERS - 1) * (own + 4) + len(EXIT_LAYERS) * 2
    counters = engine.counters
    assert (counters.prefix_hits, counters.prefix_partial_hits, counters.prefix_misses) == (0, 1, 1)
    assert counters.prefix_bytes == engine._runner.cache.bytes > 0


@pytest.mark.parametrize("kept", ["instruction", "rest"])
def test_whichever_stretch_was_evicted_is_computed_again(make_engine, kept):
    """Each of the two goes on alone: the instruction without the rest, and the rest without the instruction."""
    first, second = page(0, 0, [3, 4]), page(0, 0, [2, 5])
    engine = make_engine(AMPLE)
    engine.score([first])
    part = Part.of(first)
    engine._runner.look_up(part)
    gone = part.stretches[kept == "instruction"]
    engine._runner.cache.forget(gone.key)
    [job] = engine.score([second])
    [expected] = make_engine(0).score([second])
    np.testing.assert_allclose(job.ctr, expected.ctr, atol=CLOSE)
    assert job.token_layers_run == (LAYERS - 1) * (len(gone) + 7) + len(EXIT_LAYERS) * 2


@pytest.mark.parametrize("deeper", ["instruction", "rest"])
def test_stretches_kept_to_different_depths_go_on_from_their_own(make_engine, deeper):
    """The one that is known to the first head is computed from there on, the other not at all."""
    first, second = page(0, 0, [3, 4]), page(0, 0, [2, 5])
    engine = make_engine(AMPLE)
    engine.score([first])
    part = Part.of(first)
    engine._runner.look_up(part)
    shallow = part.stretches[deeper == "instruction"]
    engine._runner.cache.forget(shallow.key)
    engine.controller = FixedThreshold(0.0)
    engine.score([first])
    engine.controller = FixedThreshold(NEVER)
    [job] = engine.score([second])
    [expected] = make_engine(0).score([second])
    np.testing.assert_allclose(job.ctr, expected.ctr, atol=CLOSE)
    assert job.token_layers_run == (LAYERS - 1) * (len(shallow) + 7) + len(EXIT_LAYERS) * 2


def test_a_part_that_is_overtaken_goes_on_from_what_was_kept(make_engine):
    """Another page takes their common prefix through the second stage first: the slower one reads its keys and values
    there, and its rows, not those that it had itself a stage before, in the third.
    """
    first, second = page(0, 0, [3, 4]), page(0, 0, [2, 5])
    runner = make_engine(AMPLE)._runner
    slow, quick = Part.of(first), Part.of(second)
    for part in (slow, quick, quick, slow, slow):
        logits, _ = runner.run([part])
        part.pass_head(logits)
    np.testing.assert_allclose(slow.logits, make_engine(0).trace(first).logits, atol=10 * CLOSE)
    np.testing.assert_allclose(quick.logits, make_engine(0).trace(second).logits[:, :2], atol=10 * CLOSE)


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_coarser_formats_reuse_prefixes_as_well(make_engine, precision):
    """Rates stay as close as their format's rounding: a digit that falls to the other side moves a logit by little."""
    first, others = page(0, 0, [3, 4]), [page(0, 1, [2, 5]), page(0, 0, [5, 6, 2])]
    engine = make_engine(AMPLE, precision=precision)
    engine.score([first])
    for job, expected in zip(engine.score(others), make_engine(0, precision=precision).score(others), strict=True):
        np.testing.assert_allclose(job.ctr, expected.ctr, atol=0.02)


def test_a_part_is_predicted_to_cost_all_its_rows_until_it_runs(make_engine, source):
    """What the cache has may reach few layers only: a cost foretold from it would make answers late."""
    engine = make_engine(AMPLE)
    engine.score([page(0, 0, [3, 4])])
    engine.enqueue(source.job(page(0, 0, [2, 5])))
    engine._prepare(source, 1_000)
    [part] = engine._queue._prepared
    assert part.tokens == len(part.prefix) + 2 + 5
    engine._runner.run([part])
    assert part.prefix_tokens == 0


def test_a_newer_model_begins_with_nothing(make_engine):
    """What one engine keeps no other engine sees."""
    make_engine(AMPLE).score([page(0, 0, [3, 4])])
    engine = make_engine(AMPLE)
    engine.score([page(0, 0, [3, 4])])
    assert (engine.counters.prefix_hits, engine.counters.prefix_misses) == (0, 1)
