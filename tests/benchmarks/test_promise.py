"""The promise of the exit threshold, on worlds whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.promise import OPTIONS, draw, measure, promise_table, worlds

DRAWS = 40
LOOSER = replace(OPTIONS, quality_loss=0.02, thresholds=16)
"""A promise that a few candidates can show to hold below full depth."""


@pytest.fixture(scope="module")
def drawn():
    """Draws of the world whose early heads are far off."""
    random = np.random.default_rng(1)
    _, world, *_ = worlds(random, population=3_000)
    return [draw(world, random, 1_500, LOOSER) for _ in range(DRAWS)]


def most_broken():
    """A promise of exactly this probability is broken more often in one of a thousand runs."""
    return binom.ppf(0.999, DRAWS, LOOSER.failure_probability)


def test_the_promise_is_broken_at_most_as_often_as_allowed(drawn):
    """And not by going to full depth always: something is saved."""
    assert sum(one.broken for one in drawn) <= most_broken()
    assert np.mean([one.share for one in drawn]) < 0.97


def test_a_threshold_by_eye_breaks_it_more_often_than_allowed(drawn):
    """So the world is hard enough to tell a guarantee from a guess."""
    assert sum(one.broken_by_eye for one in drawn) > most_broken()


def test_the_whole_population_is_drawn_from_with_replacement():
    """A draw holds rows of the population, each answer with its own label."""
    world = next(iter(worlds(np.random.default_rng(0), population=50)))
    held_out = world.drawn(np.random.default_rng(2), 400)
    known = {(*row, label) for row, label in zip(world.logits.tolist(), world.labels, strict=True)}
    found = [(*row, label) for row, label in zip(held_out.logits.tolist(), held_out.labels, strict=True)]
    assert set(found) <= known
    assert len(set(found)) > 40


def test_the_table_tells_every_world():
    """A row per world, with both ways to choose."""
    figures = measure(draws=2, candidates=400, seed=0, population=500)
    lines = promise_table(figures).splitlines()
    assert len(lines) == 2 + 2 + len(figures["worlds"])
    assert f"{figures['worlds'][0]['broken_by_eye']} of 2" in lines[4]
