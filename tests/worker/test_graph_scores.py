"""Scores from the graph alone."""

from __future__ import annotations

import numpy as np
import pytest

from worker.graph_scores import GraphScorer


def test_many_requests_at_once_score_like_each_alone(tiny_bundle, filled_tables):
    """Batching is for speed only, whatever is unknown."""
    scorer = GraphScorer(filled_tables, tiny_bundle.calibration)
    asked = [("u1", ["i1", "nothing"]), ("nobody", ["i2"]), ("u2", [f"i{number}" for number in range(20)])]

    together = scorer.score(asked)

    assert [len(rates) for rates in together] == [2, 1, 20]
    for pair, rates in zip(asked, together, strict=True):
        np.testing.assert_allclose(rates, scorer.score([pair])[0])
        assert ((rates > 0) & (rates < 1)).all()


def test_the_score_is_the_calibrated_one(tiny_bundle, filled_tables):
    """It is what calibration makes of the features that training saw."""
    from models.features import graph_features  # noqa: PLC0415 - the reference, not what is under test

    tables, user, item = filled_tables, filled_tables.users.ids.row("u1"), filled_tables.items.ids.row("i1")
    features = graph_features(
        tables.users.embeddings[user].astype(np.float32),
        tuple(tables.users.counts[user].tolist()),
        tables.items.vectors(np.array([item])),
        tables.items.counts[[item]].astype(np.float32),
    )

    expected = tiny_bundle.calibration.graph_ctr(features)[0]
    assert GraphScorer(tables, tiny_bundle.calibration).score([("u1", ["i1"])])[0][0] == pytest.approx(expected)


def test_nothing_asked_is_nothing_answered(tiny_bundle, filled_tables):
    """No requests, no rates."""
    assert GraphScorer(filled_tables, tiny_bundle.calibration).score([]) == []
