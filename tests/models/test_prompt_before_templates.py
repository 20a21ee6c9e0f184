"""Bundles of formats 1 to 3 were trained on prompts whose tokens are these: the terse template still gives them."""

from __future__ import annotations

from random import Random

import numpy as np

from models.evidence import (
    AttributeEvidence,
    CandidateEvidence,
    Evidence,
    ItemFacts,
    PastItem,
    SimilarItem,
    SimilarUser,
    UserEvidence,
)
from models.prompt import PromptBuilder, PromptLimits
from models.text import Text

TEXT = Text.train(["user history similar others candidate click yes no same author genre of 0 1 2 3"] * 50, 500)
LIMITS = PromptLimits(title_tokens=3, candidate_title_tokens=5, past_items_shown=2, attributes_shown=2)


def prefix_of(user):
    """Token ids as they were made before there were templates; 0 where a token is soft."""
    ids = [*TEXT.start_tokens, *TEXT.encode("user"), 0, *TEXT.encode("history")]
    for past in user.recent[-LIMITS.recent_items :]:
        ids += [0, *past.item.title_tokens[:3], *TEXT.encode("yes" if past.positive else "no")]
    return ids


def suffix_of(candidate):
    """The same of a candidate."""
    ids = TEXT.encode("similar")
    for past in candidate.past[:2]:
        ids += [0, *TEXT.encode("yes" if past.positive else "no")]
    ids += [0 for _ in candidate.similar_items[: LIMITS.similar_items]]
    ids += TEXT.encode("others")
    for voter in candidate.similar_users[: LIMITS.similar_users_shown]:
        ids += TEXT.encode("yes" if voter.positive else "no")
    met = sorted((one for one in candidate.attributes if one.user_impressions), key=lambda one: one.impressions)
    for one in met[:2]:
        ids += TEXT.encode(f"same {one.name[:24]}: yes {one.user_positives} of {one.user_impressions}")
    return [*ids, *TEXT.encode("candidate"), 0, *candidate.item.title_tokens[:5], *TEXT.encode("click"), 0]


def invented(random):
    """Evidence of any size."""

    def item():
        return ItemFacts(str(random.random()), [random.randrange(99) for _ in range(random.randrange(9))], np.ones(4))

    def past():
        return PastItem(item(), random.random() < 0.5)

    def some(make, most):
        return [make() for _ in range(random.randrange(most))]

    def attribute():
        name = random.choice(["author", "genre", "a name that is far too long to be told"])
        return AttributeEvidence(name, "x", random.randrange(9), 3, random.randrange(4), random.randrange(4))

    def candidate():
        voters = some(lambda: SimilarUser("v", 0.5, random.random() < 0.5), 7)
        near = some(lambda: SimilarItem(item(), 0.5), 5)
        return CandidateEvidence(item(), some(past, 5), voters, near, attributes=some(attribute, 5))

    return Evidence(UserEvidence("u", np.ones(4), recent=some(past, 30)), some(candidate, 5))


def test_the_terse_prompt_has_the_tokens_of_before():
    """Of any evidence, token by token."""
    random = Random(5)
    for _ in range(100):
        evidence = invented(random)
        prompt = PromptBuilder(TEXT, 4, LIMITS).build(evidence)
        assert prompt.prefix.token_ids.tolist() == prefix_of(evidence.user)
        assert [suffix.token_ids.tolist() for suffix in prompt.suffixes] == [
            suffix_of(candidate) for candidate in evidence.candidates
        ]
