"""One request laid open agrees with what the worker answers."""

from __future__ import annotations

import numpy as np
import pytest

from models.features import FEATURES
from schemas.messages import ImpressionRequest
from worker.explain import explain


def _request(*item_ids, user_id="u1"):
    return ImpressionRequest(
        request_id="r", user_id=user_id, candidate_item_ids=list(item_ids), created_time_ms=1, budget_ms=60_000
    )


async def test_the_explanation_is_of_the_score_that_the_worker_gives(desk, tiny_bundle, filled_tables):
    """The head that it names answered in the worker too, with the same rate."""
    scores = await desk.answer(desk.request("i3", "i1"))
    explanation = explain(tiny_bundle, filled_tables, _request("i3", "i1", "i3"))

    assert [told.item_id for told in explanation.candidates] == ["i3", "i1"]
    for told, score in zip(explanation.candidates, scores.scores, strict=True):
        assert told.answer.ctr == pytest.approx(score.ctr, abs=1e-5)
        assert told.answer.layer == score.exit_layer


def test_it_shows_prompt_evidence_and_every_head(tiny_bundle, filled_tables):
    """Words as a person reads them, and what each of the three heads and the graph say."""
    explanation = explain(tiny_bundle, filled_tables, _request("i3"))
    [told] = explanation.candidates

    assert "⟨user⟩" in explanation.prefix
    assert "⟨item⟩ title number" in explanation.prefix
    assert told.suffix.startswith("similar ⟨title number ")
    assert explanation.titles["i3"] == "title number 3"
    assert len(told.statistics) == len(FEATURES)
    assert told.suffix.endswith("candidate ⟨item⟩ title number 3 click ⟨statistics⟩")
    assert [head.layer for head in told.heads] == [1, 2, 4]
    assert told.heads[-1].confidence == 1
    assert told.evidence.past
    assert 0 < told.graph_ctr < 1


def test_strangers_can_be_explained(tiny_bundle, filled_tables):
    """A user and an item nobody knows, and no candidates at all."""
    assert len(explain(tiny_bundle, filled_tables, _request("nothing", user_id="nobody")).candidates) == 1
    assert len(explain(tiny_bundle, filled_tables, _request()).candidates) == 0
    assert np.isfinite(explain(tiny_bundle, filled_tables, _request("nothing")).candidates[0].graph_ctr)
