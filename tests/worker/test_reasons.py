"""A score in one sentence."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from models.evidence import (
    AttributeEvidence,
    CandidateEvidence,
    ItemFacts,
    PastItem,
    SimilarItem,
    SimilarUser,
    UserEvidence,
)
from worker.reasons import closing_sentence

USER = UserEvidence("u", impressions=50, positives=12)
ITEM = ItemFacts("i", impressions=340, positives=41)


def past(*positives, similarity=0.5):
    """Past items of the user, clicked or not."""
    return [PastItem(ItemFacts("p"), positive=positive, similarity=similarity) for positive in positives]


def voters(*positives, similarity=0.5):
    """Similar users who were shown the candidate."""
    return [SimilarUser("v", similarity, positive=positive) for positive in positives]


def test_what_points_the_way_of_the_score_comes_first_and_what_does_not_follows():
    """A score below the user's rate is explained by what lies below it; what lies above is admitted."""
    evidence = CandidateEvidence(ITEM, past(True, True, True, False), voters(False, False, False, True, False))
    assert closing_sentence(0.18, evidence, USER) == (
        "0.18, because it was clicked in 12 % of 340 impressions and similar users clicked it 1 of 5 times, although "
        "the user clicked 3 of 4 similar past items; 0.06 below the user's own rate (0.24) and "
        "0.06 above the item's own rate (0.12)."
    )


def test_a_high_score_is_explained_by_what_is_high():
    """The same evidence changes sides with the score."""
    evidence = CandidateEvidence(ITEM, past(True, True, True, False), voters(False, True))
    told = closing_sentence(0.6, evidence, USER)
    assert told.startswith(
        "0.60, because the user clicked 3 of 4 similar past items and similar users clicked it 1 of 2 times, although "
        "it was clicked in 12 % of 340 impressions;"
    )


def test_of_each_side_the_strongest_are_told():
    """Three lie below; the one nearest to the reference is left out."""
    near = [SimilarItem(ItemFacts("s", impressions=100, positives=23), 0.9)]
    evidence = CandidateEvidence(ItemFacts("i", impressions=400, positives=4), past(*[False] * 9), (), near)
    told = closing_sentence(0.1, evidence, USER)
    assert "1 % of 400 impressions and the user clicked 0 of 9 similar past items;" in told
    assert "similar items" not in told


def test_few_impressions_say_less():
    """One of one is further away than thirty of fifty, and weaker."""
    evidence = CandidateEvidence(ItemFacts("i", impressions=50, positives=40), past(True))
    assert "80 % of 50 impressions and the user clicked 1 of 1 similar past item;" in closing_sentence(
        0.9, evidence, USER
    )


def test_neighbours_without_similarity_are_not_counted():
    """They weigh nothing in the statistics that the model reads."""
    evidence = CandidateEvidence(ITEM, past(True, similarity=0.0), voters(True, similarity=-0.2))
    told = closing_sentence(0.3, evidence, USER)
    assert "past item" not in told
    assert "similar users" not in told


def test_a_score_at_the_users_own_rate_needs_no_because():
    """Nothing moved it, so that nothing is given as the reason."""
    told = closing_sentence(0.24, CandidateEvidence(ITEM), USER)
    assert told == (
        "0.24: it was clicked in 12 % of 340 impressions; equal to the user's own rate (0.24) and "
        "0.12 above the item's own rate (0.12)."
    )


def test_an_unknown_user_is_compared_with_the_items_rate():
    """The item's own rate is the reference and no reason for a distance from itself."""
    told = closing_sentence(0.2, CandidateEvidence(ITEM), UserEvidence("nobody"))
    assert told == "0.20; the user has not been seen before and 0.08 above the item's own rate (0.12)."


def test_an_unknown_item_has_what_similar_ones_did():
    """A new item of a known user."""
    near = [SimilarItem(ItemFacts("s", impressions=200, positives=100), 0.9)]
    told = closing_sentence(0.4, CandidateEvidence(ItemFacts("new"), (), (), near), USER)
    assert told == (
        "0.40, because similar items were clicked in 50 % of 200 impressions; "
        "0.16 above the user's own rate (0.24) and the item has not been shown before."
    )


def test_two_strangers_are_told_as_such():
    """Nothing is known, and nothing is made up."""
    told = closing_sentence(0.31, CandidateEvidence(ItemFacts("new")), UserEvidence("nobody"))
    assert told == "0.31; neither the user nor the item has been seen before."


counts = st.integers(0, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


@given(
    ctr=st.floats(0, 1),
    of_user=counts,
    of_item=counts,
    clicked=st.lists(st.booleans(), max_size=12),
    votes=st.lists(st.booleans(), max_size=12),
)
def test_every_number_told_is_true(ctr, of_user, of_item, clicked, votes):
    """Whatever the evidence: counts are the candidate's own, and no reason lies on the other side of the reference."""
    user = UserEvidence("u", impressions=of_user[0], positives=of_user[1])
    item = ItemFacts("i", impressions=of_item[0], positives=of_item[1])
    told = closing_sentence(ctr, CandidateEvidence(item, past(*clicked), voters(*votes)), user)
    assert told.startswith(f"{ctr:.2f}")
    for pattern, positives in (
        (r"(\d+) of (\d+) similar past", clicked),
        (r"similar users clicked it (\d+) of (\d+)", votes),
    ):
        for found in re.findall(pattern, told):
            assert found == (str(sum(positives)), str(len(positives)))
    reference = of_user[1] / of_user[0] if of_user[0] else of_item[1] / of_item[0] if of_item[0] else None
    because = told.partition("because ")[2].partition(", although")[0].partition(";")[0]
    for pattern, positives in (("similar past", clicked), ("similar users", votes)):
        if pattern in because:
            assert (sum(positives) / len(positives) > reference) == (ctr > reference)


def test_what_the_user_did_with_an_author_is_told():
    """By the attribute's name and value; a value that the user has not met says nothing."""
    attributes = [AttributeEvidence("author", "Ann Onymous", 90, 40, 6, 6), AttributeEvidence("genre", "Crime", 400, 4)]
    told = closing_sentence(0.9, CandidateEvidence(ItemFacts("c"), attributes=attributes), USER)
    assert "because the user clicked 6 of 6 with author Ann Onymous" in told
    assert "Crime" not in told
