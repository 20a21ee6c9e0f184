"""The figures of the pipeline benchmark, and that its stub writes what a worker writes."""

from __future__ import annotations

import pytest

from benchmarks.pipeline import request, summary
from benchmarks.pipeline_stub import RATE, VERSION, example_scores
from benchmarks.tables import pipeline
from schemas.codec import MessageDecoder
from schemas.messages import ImpressionScores

RATES = {
    "pipeline": [90.0, 110.0, 10.0],
    "raw": [100.0, 200.0, 100.0],
    "exactly_once_pipeline": [50.0],
    "exactly_once_raw": [40.0],
}


def test_medians_are_compared_per_delivery_mode():
    """One round that the machine disturbed changes nothing."""
    figures = summary(RATES)
    assert (figures["pipeline_records_per_second"], figures["raw_records_per_second"]) == (90.0, 100.0)
    assert (figures["pipeline_to_raw"], figures["exactly_once_pipeline_to_raw"]) == (0.9, 1.25)
    assert figures["rounds"] == RATES


def test_without_a_rival_there_is_no_ratio():
    """`--only pipeline` measures one contestant, for profiling."""
    assert "pipeline_to_raw" not in summary({"pipeline": [1.0]})


def test_the_table_tells_the_conditions_and_both_goals():
    """Rates, ratio and goal of each delivery mode."""
    sizes = {"records": 20_000, "candidates": 20, "request_bytes": 300, "score_bytes": 900, "pinned": "pinned"}
    text = pipeline(summary(RATES) | sizes)
    assert "Medians of 3 rounds of 20,000 records; 300 bytes in, 900 out, 20 candidates; pinned." in text
    assert "| at least once | 90 | 100 | 0.90 | 0.95 |" in text
    assert "| exactly once | 50 | 40 | 1.25 | 0.90 |" in text


@pytest.mark.parametrize("candidates", [0, 1, 20])
def test_the_bare_loop_writes_as_much_as_the_pipeline(candidates):
    """The bytes it gets are those of a score record that answers every candidate."""
    asked = request(7, candidates)
    scores = MessageDecoder(ImpressionScores).decode(example_scores(asked))
    assert (scores.request_id, scores.model_version) == (asked.request_id, VERSION)
    assert [score.item_id for score in scores.scores] == asked.candidate_item_ids
    assert all(score.ctr == RATE for score in scores.scores)
