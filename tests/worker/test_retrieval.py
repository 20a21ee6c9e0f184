"""Evidence, compared with a reference that looks at everything in plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.prompt import PromptLimits
from schemas.messages import Item
from worker.retrieval import Retriever
from worker.state_store.tables import Tables

DIM = 4
LIMITS = PromptLimits(recent_items=4, past_items=2, similar_users=2, similar_items=2)
NEAR_USERS = 3
ITEMS = [f"i{number}" for number in range(6)]
USERS = [f"u{number}" for number in range(6)]


def _vectors_of(draw_seed, names, share):
    """Distinct random vectors for some of the names."""
    generator = np.random.default_rng(draw_seed)
    return {name: generator.standard_normal(DIM).round(3) for name in names if generator.random() < share}


def _cosine(left, right):
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))


def _nearest(similarities, count):
    return [name for name, _ in sorted(similarities.items(), key=lambda pair: -pair[1])[:count]]


class Reference:
    """The same evidence by brute force over plain dictionaries."""

    def __init__(self, item_vectors, user_vectors, pasts, met_items):
        self.item_vectors, self.user_vectors = item_vectors, user_vectors
        self.pasts, self.met_items = pasts, met_items

    def past(self, user, candidate):
        if candidate not in self.item_vectors:
            return []
        latest = {entry[1:]: entry[0] == "+" for entry in self.pasts.get(user, ())}
        near = {
            item: _cosine(self.item_vectors[item], self.item_vectors[candidate])
            for item in latest
            if item in self.item_vectors
        }
        return [(item, latest[item]) for item in _nearest(near, LIMITS.past_items)]

    def voters(self, user, candidate):
        if user not in self.user_vectors or user not in self.pasts:
            return []
        near = {
            other: _cosine(self.user_vectors[other], self.user_vectors[user])
            for other, past in self.pasts.items()
            if other != user and past and other in self.user_vectors
        }
        votes = []
        for other in _nearest(near, NEAR_USERS):
            answers = [entry[0] == "+" for entry in self.pasts[other] if entry[1:] == candidate]
            if answers:
                votes.append((other, answers[-1]))
        return votes[: LIMITS.similar_users]

    def alike(self, user, candidate):
        if candidate not in self.item_vectors or self.voters(user, candidate):
            return []
        near = {
            item: _cosine(self.item_vectors[item], self.item_vectors[candidate])
            for item in self.met_items
            if item != candidate and item in self.item_vectors
        }
        return _nearest(near, LIMITS.similar_items)


histories = st.lists(
    st.tuples(st.sampled_from("+-"), st.sampled_from(ITEMS)).map(lambda pair: pair[0] + pair[1]), max_size=7
)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    pasts=st.dictionaries(st.sampled_from(USERS), histories),
    asked=st.lists(st.sampled_from([*ITEMS, "stranger"]), max_size=8),
    user=st.sampled_from([*USERS, "newcomer"]),
)
def test_evidence_equals_a_brute_force_search(text, user_state, item_state, seed, pasts, asked, user):
    """Past items, neighbours' votes and similar items are those a search through everything finds."""
    item_vectors, user_vectors = _vectors_of(seed, ITEMS, 0.8), _vectors_of(seed + 1, USERS, 0.8)
    tables = Tables(text, DIM, history_length=8)
    met_items = {entry[1:] for past in pasts.values() for entry in past}
    for item in ITEMS:
        tables.put_item_state(item_state(item, item_vectors.get(item), int(item in met_items)))
    for name, past in pasts.items():
        tables.put_user_state(user_state(name, user_vectors.get(name), past))
    reference = Reference(item_vectors, user_vectors, pasts, met_items)

    evidence = Retriever(tables, LIMITS, NEAR_USERS).retrieve(user, asked)

    recent = [(past.item.item_id, past.positive) for past in evidence.user.recent]
    assert recent == [(entry[1:], entry[0] == "+") for entry in pasts.get(user, [])[-LIMITS.recent_items :]]
    assert [found.item.item_id for found in evidence.candidates] == asked
    for found in evidence.candidates:
        candidate = found.item.item_id
        assert [(past.item.item_id, past.positive) for past in found.past] == reference.past(user, candidate)
        voters = [(voter.user_id, voter.positive) for voter in found.similar_users]
        assert voters == reference.voters(user, candidate)
        assert [near.item.item_id for near in found.similar_items] == reference.alike(user, candidate)


def test_similarities_are_cosines(tables, user_state, item_state):
    """However long the embeddings are."""
    tables.put_item_state(item_state("a", [3, 0, 0, 0]))
    tables.put_item_state(item_state("b", [3, 4, 0, 0]))
    tables.put_user_state(user_state("u", [10, 0, 0, 0], ["+a"]))
    tables.put_user_state(user_state("v", [1, 1, 0, 0], ["-b"]))

    found = Retriever(tables, LIMITS).retrieve("u", ["b"]).candidates[0]

    assert found.past[0].similarity == pytest.approx(0.6)
    assert found.similar_users[0].similarity == pytest.approx(0.5**0.5)


def test_strangers_get_empty_evidence(tables):
    """A new user and items nobody told of are no errors; nothing is remembered of them either."""
    evidence = Retriever(tables, LIMITS).retrieve("newcomer", ["x", "y", "x"])

    assert [found.item.item_id for found in evidence.candidates] == ["x", "y", "x"]
    assert all(not (found.past or found.similar_users or found.similar_items) for found in evidence.candidates)
    assert (evidence.user.embedding, list(evidence.user.recent)) == (None, [])
    assert len(tables.items.ids) == len(tables.users.ids) == 0


def test_a_title_without_state_is_told(tables):
    """An item of the catalogue that nobody has met yet has its words."""
    tables.put_item(Item(item_id="a", title="red shoes"))

    assert list(Retriever(tables, LIMITS).retrieve("u", ["a"]).candidates[0].item.title_tokens)


def test_no_candidates_is_no_error(tables, user_state):
    """The user's part is there all the same."""
    tables.put_user_state(user_state("u", [1, 0, 0, 0], ["+a"]))

    evidence = Retriever(tables, LIMITS).retrieve("u", [])

    assert len(evidence.candidates) == 0
    assert evidence.user.positives == 1


def test_evidence_sees_every_change_made_before_it(tables, user_state, item_state):
    """Retrieval is never behind its tables: a neighbour's new vote counts at once, a removed neighbour's no more."""
    retriever = Retriever(tables, LIMITS)
    tables.put_item_state(item_state("a", [1, 0, 0, 0]))
    tables.put_user_state(user_state("u", [1, 0, 0, 0], ["+b"]))
    tables.put_user_state(user_state("v", [1, 0, 0, 0], ["+b"]))
    assert not retriever.retrieve("u", ["a"]).candidates[0].similar_users

    tables.put_user_state(user_state("v", [1, 0, 0, 0], ["+b", "-a"]))
    votes = retriever.retrieve("u", ["a"]).candidates[0].similar_users
    assert [(vote.user_id, vote.positive) for vote in votes] == [("v", False)]

    tables.remove_user("v")
    assert not retriever.retrieve("u", ["a"]).candidates[0].similar_users


def test_five_thousand_candidates_are_answered(tables, user_state, item_state):
    """Known and unknown, all get their evidence in one call."""
    names = [f"item-{number}" for number in range(5000)]
    generator = np.random.default_rng(0)
    for name in names[:2500]:
        tables.put_item_state(item_state(name, generator.standard_normal(DIM)))
    tables.put_user_state(user_state("u", [1, 0, 0, 0], [f"+{name}" for name in names[:5]]))

    evidence = Retriever(tables, LIMITS).retrieve("u", names)

    assert [found.item.item_id for found in evidence.candidates] == names
    assert all(len(found.past) == LIMITS.past_items for found in evidence.candidates[:2500])


def test_what_has_left_is_no_evidence_while_the_index_still_has_it(tables, user_state, item_state):
    """The index may be read by others, and learns later: rows that were given up are neither shown nor given away."""
    for name, vector in (("a", [1, 0, 0, 0]), ("b", [1, 0.1, 0, 0]), ("c", [1, 0.2, 0, 0])):
        tables.put_item_state(item_state(name, vector, 5))
    for name, vector in (("u", [1, 0, 0, 0]), ("v", [1, 0.1, 0, 0])):
        tables.put_user_state(user_state(name, vector, ["+c"]))
    tables.refresh_indexes()
    retriever = Retriever(tables, LIMITS)
    with tables.item_index._reading, tables.user_index._reading:
        tables.remove_item_state("b")
        tables.remove_user("v")
        tables.refresh_indexes()
        tables.put_item_state(item_state("new", [-1, 0, 0, 0], 5))
        tables.put_user_state(user_state("w", [-1, 0, 0, 0], ["+c"]))
        shown, voted = (retriever.retrieve("u", [candidate]).candidates[0] for candidate in ("a", "c"))
    assert [similar.item.item_id for similar in shown.similar_items] == ["c"]
    assert [similar.user_id for similar in voted.similar_users] == []

    tables.refresh_indexes()
    tables.item_index.maintain()
    shown = retriever.retrieve("u", ["a"]).candidates[0]
    assert [similar.item.item_id for similar in shown.similar_items] == ["c", "new"]
