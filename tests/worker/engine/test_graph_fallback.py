"""The last two rungs: the graph's rate, then the base rate; every candidate is answered."""

from __future__ import annotations

import numpy as np
import pytest

from worker.engine.counters import EngineCounters
from worker.engine.graph_fallback import GraphFallback
from worker.engine.scoring_job import GRAPH, ScoringJob

BASE = 0.125


class Graph:
    """Scores by place; fails for some jobs, and has no number for some places."""

    def __init__(self, failing=(), unknown=()):
        self.failing = failing
        self.unknown = unknown
        self.calls = 0

    def graph_ctr(self, asked):
        self.calls += 1
        if any(job is bad for job, _ in asked for bad in self.failing):
            raise MemoryError("std::bad_alloc")
        return [np.where(np.isin(places, self.unknown), np.nan, 0.5 + places / 100) for _, places in asked]


@pytest.fixture
def counters():
    """What was counted."""
    return EngineCounters()


@pytest.fixture
def fallback(counters):
    """One with a base rate that no graph score equals."""
    return GraphFallback(BASE, counters)


def test_a_request_whose_graph_score_fails_gets_the_base_rate_and_the_others_theirs(fallback, counters):
    """Wherever it stands among the others; one fault."""
    for bad in range(5):
        counters.faults = 0
        jobs = [ScoringJob(3) for _ in range(5)]
        for job in jobs:
            fallback.add(job, np.arange(3))
        answered = fallback.answer(Graph(failing=[jobs[bad]]), 100)

        assert answered == jobs
        for place, job in enumerate(jobs):
            expected = [BASE] * 3 if place == bad else [0.5, 0.51, 0.52]
            np.testing.assert_allclose(job.ctr, expected)
            assert (job.made_by == GRAPH).all()
            assert job.unanswered == 0
        assert counters.faults == 1


@pytest.mark.parametrize("nothing", [np.nan, np.inf])
def test_a_rate_that_is_no_number_is_the_base_rate_for_that_candidate_alone(fallback, counters, nothing):
    """Its neighbours keep the graph's."""
    job = ScoringJob(3)
    fallback.add(job, np.arange(3))
    graph = Graph()
    graph.graph_ctr = lambda _: [np.array([0.5, nothing, 0.7])]
    fallback.answer(graph, 100)

    np.testing.assert_allclose(job.ctr, [0.5, BASE, 0.7])
    assert counters.faults == 1


def test_an_answer_of_another_shape_is_a_fault(fallback, counters):
    """Too few rates for the candidates: base rate, not a job that waits forever."""
    job = ScoringJob(3)
    fallback.add(job, np.arange(3))
    graph = Graph()
    graph.graph_ctr = lambda _: [np.array([0.5])]
    fallback.answer(graph, 100)

    assert job.ctr.tolist() == [BASE] * 3
    assert counters.faults == 1


def test_candidates_that_are_answered_stay_so(fallback):
    """Adding a part twice, or after its head has answered, neither changes an answer nor finishes a job twice."""
    job = ScoringJob(3)
    job.answer(np.array([1]), 0.9, 4, 1.0, 0)
    fallback.add(job, np.arange(3))
    fallback.add(job, np.arange(3))
    fallback.answer(Graph(), 100)

    np.testing.assert_allclose(job.ctr, [0.5, 0.9, 0.52])
    assert job.unanswered == 0
    fallback.add(job, np.arange(3))
    assert len(fallback) == 0


def test_parts_of_one_request_answered_together_are_one_job(fallback):
    """Else it would be published twice."""
    job = ScoringJob(4)
    fallback.add(job, np.array([0, 1]))
    fallback.add(job, np.array([2, 3]))

    assert fallback.answer(Graph(), 100) == [job]


def test_no_more_than_asked_for_are_answered_at_once(fallback):
    """A burst of graph answers must not hold up a batch."""
    jobs = [ScoringJob(1) for _ in range(5)]
    for job in jobs:
        fallback.add(job, np.arange(1))

    assert fallback.answer(Graph(), 2) == jobs[:2]
    assert len(fallback) == 3
