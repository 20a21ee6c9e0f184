"""One request laid open agrees with what the worker answers."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from models.features import FEATURES
from models.prompt_batch import collate
from models.prompt_template import WORDS
from schemas.messages import ImpressionRequest
from worker.explain import explain
from worker.retrieval import Retriever


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


def test_a_prompt_in_words_is_shown_line_by_line(tiny_bundle, filled_tables):
    """The bundle's own words, with the titles that it reads."""
    explanation = explain(replace(tiny_bundle, template=WORDS), filled_tables, _request("i3"))
    shared, own = explanation.prefix.splitlines(), explanation.candidates[0].suffix.splitlines()
    assert shared[1:3] == ["User: ⟨user⟩", "History:"]
    assert all(line.startswith('⟨item⟩ " title number ') for line in shared[3:])
    assert own[0] == "Similar:"
    assert own[-2:] == ['Next: ⟨item⟩ " title number 3 "', "Will they like it? ⟨statistics⟩"]


def test_a_prompt_without_embeddings_is_scored_as_the_model_does(tiny_bundle, filled_tables):
    """A template of words alone leaves the shared part without any soft token."""
    plain = {name: getattr(WORDS, name).replace("{item}", "") for name in ("past", "similar_past", "candidate")}
    bundle = replace(tiny_bundle, template=msgspec.structs.replace(WORDS, user="", **plain))
    [told] = explain(bundle, filled_tables, _request("i3")).candidates
    prompt = bundle.prompt_builder().build(Retriever(filled_tables, bundle.limits).retrieve("u1", ["i3"]))
    assert not len(prompt.prefix.soft_positions)
    with torch.inference_mode():
        logits = bundle.model(collate([prompt])).double().numpy()[0]
    expected = [float(bundle.calibration.ctr(head, logits[head])) for head in range(len(logits))]
    assert [head.ctr for head in told.heads] == pytest.approx(expected, abs=1e-5)


def test_strangers_can_be_explained(tiny_bundle, filled_tables):
    """A user and an item nobody knows, and no candidates at all."""
    assert len(explain(tiny_bundle, filled_tables, _request("nothing", user_id="nobody")).candidates) == 1
    assert len(explain(tiny_bundle, filled_tables, _request()).candidates) == 0
    assert np.isfinite(explain(tiny_bundle, filled_tables, _request("nothing")).candidates[0].graph_ctr)
