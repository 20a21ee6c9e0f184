"""The statistics: their signs, their bounds, and what happens without evidence."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evidence import CandidateEvidence, Evidence, ItemFacts, PastItem, SimilarItem, SimilarUser, UserEvidence
from models.features import (
    CROSSED_FEATURES,
    EVIDENCE_FEATURES,
    FEATURES,
    GRAPH_FEATURES,
    as_unknown,
    crossed_features,
    evidence_features,
    graph_features,
    shrunk_logit,
)

POPULAR = ItemFacts("popular", impressions=100, positives=90)
POOR = ItemFacts("poor", impressions=100, positives=10)


def evidence_of(candidate, recent=()):
    """A request for one candidate, as features by name."""
    evidence = Evidence(UserEvidence("u", recent=recent), [candidate])
    return dict(zip(EVIDENCE_FEATURES, evidence_features(evidence)[0].tolist(), strict=True))


def by_name(user_embedding, user_counts, item_embedding, item_counts):
    """The graph features of one candidate."""
    features = graph_features(
        user_embedding, user_counts, np.array([item_embedding], np.float32), np.array([item_counts], np.float32)
    )
    return dict(zip(GRAPH_FEATURES, features[0].tolist(), strict=True))


def test_affinity_is_the_inner_product_and_cosine_its_direction():
    """Both compare the user's and the item's embedding."""
    features = by_name(np.array([3.0, 4.0], np.float32), (0, 0), (6.0, 8.0), (0, 0))
    assert features["affinity"] == pytest.approx(50.0)
    assert features["cosine"] == pytest.approx(1.0)


def test_nobody_and_nothing_known_gives_zeros():
    """Without embeddings and counts every graph feature is neutral."""
    assert set(by_name(None, (0, 0), (0.0, 0.0), (0, 0)).values()) == {0.0}


def test_a_click_on_an_unpopular_item_surprises_more_than_one_on_a_popular():
    """Surprise is the click less the item's own rate."""
    rare = evidence_of(CandidateEvidence(POOR), recent=[PastItem(POOR, positive=True)])
    usual = evidence_of(CandidateEvidence(POOR), recent=[PastItem(POPULAR, positive=True)])
    assert rare["history_surprise"] > usual["history_surprise"] > 0
    disappointed = evidence_of(CandidateEvidence(POOR), recent=[PastItem(POPULAR, positive=False)])
    assert disappointed["history_surprise"] < 0


def test_recent_features_weigh_the_latest_most():
    """The same clicks count more at the end of the history than at its beginning."""
    click, skip = PastItem(POOR, positive=True), PastItem(POOR, positive=False)
    warming = evidence_of(CandidateEvidence(POOR), recent=[skip] * 6 + [click] * 6)
    cooling = evidence_of(CandidateEvidence(POOR), recent=[click] * 6 + [skip] * 6)
    assert warming["recent_rate"] > cooling["recent_rate"]
    assert warming["recent_surprise"] > cooling["recent_surprise"]
    assert warming["history_surprise"] == pytest.approx(cooling["history_surprise"])


def test_votes_of_nearer_neighbours_count_more():
    """The click of a very similar user outweighs the skip of a less similar one."""
    candidate = CandidateEvidence(
        POOR,
        similar_users=[
            SimilarUser("near", similarity=0.9, positive=True),
            SimilarUser("far", similarity=0.1, positive=False),
        ],
    )
    assert evidence_of(candidate)["neighbour_vote"] > 0


def test_similar_items_tell_their_common_rate():
    """The nearest items' counts are added up before the rate is taken."""
    near = [SimilarItem(POPULAR, 0.9), SimilarItem(POPULAR, 0.8)]
    assert evidence_of(CandidateEvidence(POOR, similar_items=near))["similar_item_rate"] == pytest.approx(
        float(shrunk_logit(180, 200)), abs=1e-5
    )


def test_what_was_found_for_a_candidate_by_hand():
    """Votes and surprises are weighed by similarity, none of it negative, and shrunk by imagined neutral ones."""
    candidate = CandidateEvidence(
        POOR,
        past=[
            PastItem(POPULAR, positive=False, similarity=0.5),
            PastItem(POOR, positive=True, similarity=0.25),
            PastItem(POOR, positive=True, similarity=-0.4),
        ],
        similar_users=[SimilarUser("v", 0.8, positive=False), SimilarUser("w", -0.6, positive=True)],
        similar_items=[SimilarItem(POPULAR, 0.9), SimilarItem(POOR, 0.1)],
    )
    popular, poor = 92 / 104, 12 / 104  # click rates with the prior's four impressions, two of them clicked
    found = evidence_of(candidate)
    assert found["past_vote"] == pytest.approx((0.25 - 0.5) / (0.75 + 1))
    assert found["past_surprise"] == pytest.approx((0.5 * -popular + 0.25 * (1 - poor)) / (0.75 + 3))
    assert found["past_similarity"] == pytest.approx(0.5)
    assert found["past_known"] == 1.0
    assert found["neighbour_vote"] == pytest.approx(-0.8 / (0.8 + 1))
    assert found["neighbour_count"] == pytest.approx(math.log(3))
    assert found["similar_item_rate"] == pytest.approx(0.0, abs=1e-6)


def test_nothing_found_gives_zeros():
    """Without a history and without neighbours every feature is neutral."""
    assert set(evidence_of(CandidateEvidence(POOR)).values()) == {0.0}


def test_the_recent_history_by_hand():
    """An event counts half once four more have followed it."""
    recent = [PastItem(POOR, positive=True), *[PastItem(POPULAR, positive=False)] * 4]
    popular, poor = 92 / 104, 12 / 104
    fade = 0.5**0.25
    weights = [fade**age for age in (4, 3, 2, 1, 0)]
    surprises = [1 - poor, -popular, -popular, -popular, -popular]
    recent_surprise = sum(weight * surprise for weight, surprise in zip(weights, surprises, strict=True))
    found = evidence_of(CandidateEvidence(POOR), recent)
    assert found["history_surprise"] == pytest.approx(sum(surprises) / (5 + 3))
    assert found["recent_surprise"] == pytest.approx(recent_surprise / (sum(weights) + 3))
    assert found["recent_rate"] == pytest.approx(math.log((0.5 + 2) / (sum(weights) - 0.5 + 2)))
    assert found["recent_count"] == pytest.approx(math.log(6))


def test_counts_of_user_and_item_by_hand():
    """Rates are shrunk log-odds, counts are logarithms, and one impression makes an id known."""
    features = by_name(None, (9, 3), (0.0, 0.0), (4, 4))
    assert features == pytest.approx(
        {
            "affinity": 0.0,
            "cosine": 0.0,
            "user_rate": math.log(5 / 8),
            "item_rate": math.log(6 / 2),
            "user_count": math.log(10),
            "item_count": math.log(5),
            "user_known": 1.0,
            "item_known": 1.0,
        }
    )


counts = st.integers(0, 10**9)


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.booleans(), counts, counts), max_size=30),
    st.lists(st.tuples(st.floats(-1, 1), st.booleans()), max_size=30),
)
@settings(max_examples=80)
def test_all_evidence_features_stay_small_and_finite(past, votes):
    """Whatever the counts and similarities, the model reads numbers of ordinary size."""
    history = [
        PastItem(ItemFacts("i", impressions=max(shown, clicked), positives=clicked), positive, similarity)
        for similarity, positive, shown, clicked in past
    ]
    users = [SimilarUser("u", similarity, positive) for similarity, positive in votes]
    candidate = CandidateEvidence(POOR, past=history, similar_users=users)
    numbers = evidence_features(Evidence(UserEvidence("u", recent=history), [candidate]))
    assert numbers.shape == (1, len(EVIDENCE_FEATURES))
    assert np.isfinite(numbers).all()
    assert np.abs(numbers).max() < 25


def test_a_rate_is_told_with_what_it_can_be_trusted_for():
    """Times the logarithm of its impressions, and the user's times how far their grades lie apart: by hand."""
    known = {"user_rate": 0.5, "user_count": 2.0, "item_rate": -0.25, "item_count": 3.0, "grade_spread": 0.1}
    others = np.array([[known.get(name, 9.0) for name in FEATURES[: -len(CROSSED_FEATURES)]]], np.float32)

    assert crossed_features(others)[0] == pytest.approx([0.5 * 2.0, -0.25 * 3.0, 0.5 * 0.1])


def test_names_are_distinct():
    """Every column has a name of its own."""
    assert len(set(FEATURES)) == len(FEATURES)


@pytest.mark.parametrize(("user", "item"), [(True, False), (False, True), (True, True)])
def test_features_made_unknown_are_those_of_unknown_ids(user, item):
    """What `as_unknown` gives is what `graph_features` gives for an id without counts and embedding."""
    embedding, embeddings = np.ones(4, np.float32), np.full((3, 4), 0.5, np.float32)
    counts = np.array([[9, 3], [5, 5], [1, 0]], np.float32)
    known = graph_features(embedding, (12, 7), embeddings, counts)
    expected = graph_features(
        None if user else embedding,
        (0, 0) if user else (12, 7),
        np.zeros_like(embeddings) if item else embeddings,
        np.zeros_like(counts) if item else counts,
    )
    np.testing.assert_allclose(as_unknown(known, user=user, item=item), expected, atol=1e-6)
