"""Evidence that is kept from a model: that and nothing else, as of the same time."""

import numpy as np
import pytest
from msgspec.structs import replace

from evaluation.left_out import NOTHING
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
from models.features import FEATURES
from models.prompt import PromptBuilder
from models.prompt_limits import PromptLimits
from models.prompt_rendering import render
from models.prompt_template import WORDS
from models.token_sequence import SoftKind
from training.evaluate import evaluate
from training.left_out import ITEM, KINDS, USER, prompts_without, with_left_out

WORDS_OF = {
    "words of titles and attributes": ("moon", "sun", "star", "rain", "same by"),
    "the user's latest events": ("moon",),
    "the most similar of the user's past": ("sun",),
    "similar users and similar items": ("star", "2 of 3"),
    "the graph: these two, and embeddings": ("sun", "star", "2 of 3"),
    "what items of the same attributes and words did": ("same by",),
    "click rates and counts": (),
    "all statistics": (),
}
"""What of a prompt is gone with each kind: by the titles of `everything` below."""
NEIGHBOURS = {"neighbour_vote", "neighbour_count"}


class Builder:
    """A replay's part that is needed here: evidence made into a prompt."""

    def __init__(self, text):
        limits = PromptLimits(
            similar_title_tokens=8, similar_users_shown=3, similar_items=1, attributes_shown=2, title_tokens=8
        )
        self._builder = PromptBuilder(text, 8, limits, template=replace(WORDS, similar_item="near {item}{title}"))
        self._text = text

    def prompt_of(self, evidence):
        """As `Replay.prompt_of`."""
        return self._builder.build(evidence)

    def item(self, name):
        """An item whose title is one word."""
        vector = np.random.default_rng(len(name)).normal(size=8).astype(np.float32)
        return ItemFacts(name, self._text.encode(name), vector, impressions=9, positives=5)

    def everything(self, *, voters):
        """Evidence of every kind, for one candidate; items stand in for it where no similar user was shown it."""
        user = UserEvidence("u", np.ones(8, np.float32), 7, 3, [PastItem(self.item("moon"), positive=True)])
        candidate = CandidateEvidence(
            self.item("rain"),
            [PastItem(self.item("sun"), positive=False, similarity=0.5)],
            [SimilarUser(f"u{place}", 0.5, positive=place > 0) for place in range(3 if voters else 0)],
            [SimilarItem(self.item("star"), 0.5)],
            np.arange(1, 9, dtype=np.float32),
            np.arange(1, 12, dtype=np.float32),
            [AttributeEvidence("by", "sea", 8, 4, 3, 1)],
        )
        return Evidence(user, [candidate])


@pytest.fixture(scope="module")
def builder(text):
    """Prompts in words."""
    return Builder(text)


def told(prompt, text):
    """A prompt's words."""
    return " ".join(render(part, text) for part in (prompt.prefix, *prompt.suffixes))


def test_every_statistic_is_made_of_some_kind():
    """So that one that is added has to be assigned."""
    assert {name for kind in KINDS.values() if len(kind.statistics) < len(FEATURES) for name in kind.statistics} == set(
        FEATURES
    )
    assert set(WORDS_OF) == set(KINDS)


@pytest.mark.parametrize("voters", [True, False], ids=["similar users", "items that stand in"])
@pytest.mark.parametrize("name", KINDS)
def test_one_kind_is_gone_and_all_others_are_as_they_were(builder, text, name, voters):
    """Its words, its soft tokens and its statistics; every other word and number stays."""
    evidence = builder.everything(voters=voters)
    whole = builder.prompt_of(evidence)
    without = KINDS[name].left_out(builder, evidence)
    words = {word for gone in WORDS_OF.values() for word in gone} - {"star" if voters else "2 of 3"}
    assert all(word in told(whole, text) for word in words), told(whole, text)
    assert {word for word in words if word not in told(without, text)} == words & set(WORDS_OF[name])
    before, after = whole.statistics(len(FEATURES))[0], without.statistics(len(FEATURES))[0]
    for place, feature in enumerate(FEATURES):
        assert (before[place] != 0) == (voters or feature not in NEIGHBOURS), feature
        assert after[place] == (0 if feature in KINDS[name].statistics else before[place]), feature
    embeddings = [
        part.soft_values[part.soft_kinds != SoftKind.STATISTICS].any() for part in (without.prefix, *without.suffixes)
    ]
    assert embeddings == [name != "the graph: these two, and embeddings"] * 2


def test_a_user_or_an_item_can_be_new(new_replay, log):
    """Nothing is known of the one, and all of the other; with nothing left out it is the usual prompt."""
    replay = new_replay()
    replay.advance(log.interactions[:700])
    event = log.interactions[700]
    prompts = prompts_without(replay, event.user_id, event.item_id)
    assert list(prompts) == [NOTHING, *KINDS, USER, ITEM]

    def numbers(name):
        return dict(zip(FEATURES, prompts[name].statistics(len(FEATURES))[0].tolist(), strict=True))

    usual = replay.prompt(event.user_id, [event.item_id])
    np.testing.assert_array_equal(prompts[NOTHING].statistics(len(FEATURES)), usual.statistics(len(FEATURES)))
    assert (numbers(USER)["user_known"], numbers(USER)["item_known"]) == (0, 1)
    assert (numbers(ITEM)["user_known"], numbers(ITEM)["item_known"]) == (1, 0)
    assert numbers(USER)["item_rate"] == numbers(NOTHING)["item_rate"]
    assert numbers(ITEM)["user_rate"] == numbers(NOTHING)["user_rate"]


@pytest.mark.slow
def test_with_all_evidence_it_is_the_evaluation(tiny_bundle, log):
    """And each difference is that to it, with an interval around."""
    evaluation = evaluate(tiny_bundle, log)
    first, *others = with_left_out(evaluation, tiny_bundle, log).left_out
    assert first.left_out == NOTHING
    assert first.auc == pytest.approx(evaluation.served.auc, abs=1e-6)
    assert first.log_loss == pytest.approx(evaluation.served.log_loss, rel=1e-5)
    assert [point.left_out for point in others] == [*KINDS, USER, ITEM]
    for point in others:
        assert point.difference.difference == pytest.approx(point.auc - first.auc, abs=1e-9)
        assert point.difference.low <= point.difference.difference <= point.difference.high
        assert point.log_loss != first.log_loss, point.left_out
