"""The statistics of a prompt in words."""

from __future__ import annotations

import numpy as np

from models.evidence import CandidateEvidence, Evidence, ItemFacts, PastItem, UserEvidence
from models.feature_words import in_words
from models.features import FEATURES, evidence_features, graph_features


def _told(user, candidate):
    graph = graph_features(
        None, (user.impressions, user.positives), np.zeros((1, 2), np.float32), np.array([[40, 10]], np.float32)
    )
    statistics = np.concatenate([graph, evidence_features(Evidence(user, [candidate]))], axis=1)[0]
    # Those of shared values are left out, as for a model that reads none.
    return dict(zip(FEATURES, in_words(statistics.tolist()), strict=False))


def test_every_statistic_has_words_of_its_own():
    """All are told, no two with the same words."""
    words = [words for words, _ in in_words([0.0] * len(FEATURES))]
    assert len(set(words)) == len(FEATURES)


def test_values_are_told_as_a_person_counts():
    """Logits become percentages, logarithms become counts, flags become yes or no."""
    past = [PastItem(ItemFacts("a", impressions=10, positives=5), positive=True, similarity=0.75)]
    told = _told(
        UserEvidence("u", impressions=1_236, positives=618, recent=past), CandidateEvidence(ItemFacts("c"), past=past)
    )
    values = {name: value for name, (_, value) in told.items()}
    assert values["user_count"] == "1,236"
    assert values["user_rate"] == "50.0%"
    assert values["item_rate"] == "27.3%"  # (10 + 2) of (40 + 4)
    assert values["user_known"] == "yes"
    assert values["past_similarity"] == "+0.750"
    assert values["recent_count"] == "1"


def test_a_stranger_is_told_as_such():
    """Of an unknown user there are no impressions and no past items."""
    told = _told(UserEvidence("nobody"), CandidateEvidence(ItemFacts("c")))
    assert [told[name][1] for name in ("user_known", "past_known", "user_count")] == ["no", "no", "0"]
