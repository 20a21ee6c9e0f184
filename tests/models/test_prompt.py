"""The layout of a prompt."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from msgspec.structs import astuple

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
from models.features import (
    CROSSED_FEATURES,
    FEATURES,
    FIRST_FEATURES,
    GRADED_FEATURES,
    SHARED_FEATURES,
    crossed_features,
    evidence_features,
    graph_features,
)
from models.prompt import PromptBuilder, PromptLimits
from models.prompt_lines import fixed_texts
from models.prompt_rendering import render
from models.prompt_template import COMPACT, TERSE, WORDS
from models.text import START_TOKEN, Text
from models.token_sequence import SoftKind

DIM = 4
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
PHRASES = [text for template in (TERSE, WORDS) for text in fixed_texts(template, with_attributes=True)]
TEXT = Text.train(["Silent Galaxy", "Crooked Alibi", " ".join(NUMBERS), *PHRASES * 50], 700)
LIMITS = PromptLimits(
    recent_items=3,
    title_tokens=2,
    candidate_title_tokens=5,
    past_items_shown=2,
    similar_users_shown=3,
    similar_items=1,
)


def item(name, title="", embedded=True):
    """Facts of an item whose embedding is constant."""
    embedding = np.full(DIM, 0.5, np.float32) if embedded else None
    return ItemFacts(name, TEXT.encode(title) if title else [], embedding, impressions=4, positives=2)


def builder(limits=LIMITS):
    """The builder under test."""
    return PromptBuilder(TEXT, DIM, limits)


def test_prefix_and_suffix_read_as_laid_out():
    """User and history first; then, per candidate, its evidence, itself, its statistics and the question."""
    user = UserEvidence("u", np.ones(DIM, np.float32), recent=[PastItem(item("a", "Silent Galaxy"), positive=True)])
    candidate = CandidateEvidence(
        item("c", "Crooked Alibi"),
        past=[PastItem(item("a"), positive=False, similarity=0.9)],
        similar_users=[SimilarUser("v", 0.8, positive=True)],
    )
    prompt = builder().build(Evidence(user, [candidate]))
    assert render(prompt.prefix, TEXT).endswith("user ⟨user⟩ history ⟨item⟩ Silent Galaxy yes")
    assert render(prompt.suffixes[0], TEXT) == (
        "similar ⟨item⟩ no others yes candidate ⟨item⟩ Crooked Alibi click ⟨statistics⟩"
    )


def test_a_compact_prompt_has_a_token_an_item():
    """Embedding, title and outcome of an item share one position; the statistics go into the candidate's."""
    past = PastItem(item("a", "Silent Galaxy"), positive=True)
    user = UserEvidence("u", np.ones(DIM, np.float32), recent=[past, PastItem(item("b"), positive=False)])
    candidate = CandidateEvidence(item("c", "Crooked Alibi"), past=[past], similar_users=[SimilarUser("v", 0.8, True)])
    compact = PromptBuilder(TEXT, DIM, replace(LIMITS, similar_title_tokens=2), template=COMPACT)
    prompt = compact.build(Evidence(user, [candidate]))
    prefix, (suffix,) = prompt.prefix, prompt.suffixes
    assert render(prefix, TEXT) == "⟨user: user⟩ ⟨item: Silent Galaxy yes⟩ ⟨item: no⟩"
    assert render(suffix, TEXT) == "⟨item: Silent Galaxy yes⟩ yes ⟨item, statistics: candidate Crooked Alibi click⟩"
    assert (len(prefix), len(suffix)) == (4, 3)  # the start token, which shows nothing, is the first
    assert not prefix.token_ids[1:].any()
    words = [TEXT.encode(word) for word in ("candidate", "Crooked Alibi", "click")]
    assert suffix.added_ids[suffix.added_positions == 2].tolist() == [token for word in words for token in word]
    assert suffix.soft_positions.tolist() == [0, 2, 2]
    told = compact.soft_items(Evidence(user, [candidate]))
    assert render(suffix, TEXT, told[1]) == render(suffix, TEXT)


def test_of_lines_that_are_summed_an_empty_one_is_left_out():
    """It takes no token, nor any of a limit."""
    template = msgspec.structs.replace(COMPACT, user="")
    built = PromptBuilder(TEXT, DIM, LIMITS, template=template)
    prompt = built.build(Evidence(UserEvidence("u"), [CandidateEvidence(item("c"))]))
    assert (len(prompt.prefix), len(prompt.suffixes[0])) == (1, 1)  # the start token; candidate and question
    limited = PromptBuilder(TEXT, DIM, replace(LIMITS, prefix_tokens=1), template=template)
    assert len(limited.build(Evidence(UserEvidence("u"), [])).prefix) == 1


def test_the_question_has_a_token_where_the_candidates_line_is_empty():
    """It is never added to the evidence before it, and counts as much as with a title."""
    template = msgspec.structs.replace(COMPACT, candidate="{title}")
    candidate = CandidateEvidence(item("c"), past=[PastItem(item("a"), positive=True)])
    built = PromptBuilder(TEXT, DIM, LIMITS, template=template).build(Evidence(UserEvidence("u"), [candidate]))
    assert render(built.suffixes[0], TEXT) == "⟨item: yes⟩ ⟨statistics: click⟩"
    tight = PromptBuilder(TEXT, DIM, replace(LIMITS, suffix_tokens=1), template=template)
    assert render(tight.build(Evidence(UserEvidence("u"), [candidate])).suffixes[0], TEXT) == "⟨statistics: click⟩"


def test_a_prompt_in_words_reads_like_a_text():
    """A line each; titles in quotes, which go with them; headings only above something.

    Our own tokenizers begin every text with a space; those of checkpoints do not.
    """
    user = UserEvidence(
        "u", recent=[PastItem(item("a", "Silent Galaxy"), positive=True), PastItem(item("b"), positive=False)]
    )
    candidate = CandidateEvidence(
        item("c", "Crooked Alibi"),
        past=[PastItem(item("a", "Silent Galaxy"), positive=False, similarity=0.9)],
        similar_users=[SimilarUser("v", 0.8, positive=True), SimilarUser("w", 0.7, positive=False)],
        attributes=[AttributeEvidence("author", "Ann", 40, 30, 3, 2)],
    )
    evidence = Evidence(user, [candidate, CandidateEvidence(item("d"))])
    limits = replace(LIMITS, attributes_shown=1, similar_title_tokens=1)
    in_words = PromptBuilder(TEXT, DIM, limits, template=WORDS)
    prompt, shown = in_words.build(evidence), in_words.soft_items(evidence)
    told = [render(part, TEXT, items) for part, items in zip((prompt.prefix, *prompt.suffixes), shown, strict=True)]
    assert told[0].splitlines() == [
        *("Judge from what the user liked before whether they will like the next item.", "User: ⟨user⟩", "History:"),
        *('⟨item⟩ " Silent Galaxy ": liked', "⟨b⟩ : disliked"),
    ]
    assert told[1].splitlines() == [
        *("Similar:", '⟨item⟩ " Silent " disliked', "similar users: 1 of 2 liked it", "same author: liked 2 of 3"),
        *('Next: ⟨item⟩ " Crooked Alibi "', "Will they like it? ⟨statistics⟩"),
    ]
    assert told[2].splitlines() == ["Next: ⟨d⟩", "Will they like it? ⟨statistics⟩"]


def test_a_prompt_of_words_alone_has_one_soft_token():
    """A template may leave embeddings out; the statistics stay where the answer is read."""
    words_alone = msgspec.structs.replace(
        WORDS,
        **{name: getattr(WORDS, name).replace("{item}", "") for name in ("past", "similar_past", "candidate")},
        user="",
    )
    evidence = Evidence(
        UserEvidence("u", recent=[PastItem(item("a", "Silent Galaxy"), positive=True)]),
        [CandidateEvidence(item("c", "Crooked Alibi"), [PastItem(item("a"), positive=True)])],
    )
    in_words = PromptBuilder(TEXT, DIM, LIMITS, template=words_alone)
    prompt = in_words.build(evidence)
    assert prompt.prefix.soft_values.shape == (0, len(FEATURES))
    assert prompt.suffixes[0].soft_kinds.tolist() == [SoftKind.STATISTICS]
    assert in_words.soft_items(evidence) == [[], []]


def test_soft_tokens_carry_their_numbers():
    """A soft token's row holds the embedding or the statistics, padded with zeros."""
    user = UserEvidence("u", np.array([1, 2, 3, 4], np.float32), impressions=7, positives=3)
    candidates = [
        CandidateEvidence(item("c")),
        CandidateEvidence(item("d", embedded=False), past=[PastItem(item("a"), positive=True, similarity=0.7)]),
    ]
    evidence = Evidence(user, candidates)
    prompt = builder().build(evidence)
    (row,) = prompt.prefix.soft_values
    assert row[:DIM].tolist() == [1, 2, 3, 4]
    assert not row[DIM:].any()
    assert [suffix.soft_kinds.tolist() for suffix in prompt.suffixes] == [
        [SoftKind.ITEM, SoftKind.STATISTICS],
        [SoftKind.ITEM, SoftKind.ITEM, SoftKind.STATISTICS],
    ]
    embeddings = np.array([[0.5] * DIM, [0.0] * DIM], np.float32)
    counts = np.array([[4, 2], [4, 2]], np.float32)
    from_graph = graph_features(user.embedding, (7, 3), embeddings, counts)
    nothing_shared = np.zeros((2, len(SHARED_FEATURES) + len(GRADED_FEATURES)), np.float32)
    expected = np.concatenate([from_graph, evidence_features(evidence), nothing_shared], axis=1)
    expected = np.concatenate([expected, crossed_features(expected)], axis=1)
    for suffix, embedding, statistics in zip(prompt.suffixes, embeddings, expected, strict=True):
        assert suffix.soft_values.shape[1] == len(FEATURES)
        np.testing.assert_array_equal(suffix.soft_values[-2, :DIM], embedding)
        np.testing.assert_array_equal(suffix.soft_values[-1], statistics)


def test_statistics_begin_with_the_graph_features_bit_by_bit():
    """The graph score was fitted to them and is computed without a prompt too: both must see the same float32."""
    random = np.random.default_rng(3)
    user = UserEvidence("u", random.normal(size=DIM).astype(np.float32), impressions=70, positives=13)
    embeddings = random.normal(size=(50, DIM)).astype(np.float32)
    impressions = random.integers(1, 1_000, 50)
    items = [
        ItemFacts(str(row), [], embeddings[row], impressions=int(shown), positives=int(shown) // 3)
        for row, shown in enumerate(impressions)
    ]
    prompt = builder().build(Evidence(user, [CandidateEvidence(facts) for facts in items]))
    counts = np.column_stack([impressions, impressions // 3]).astype(np.float32)
    expected = graph_features(user.embedding, (70, 13), embeddings, counts)
    found = np.stack([suffix.soft_values[-1, : expected.shape[1]] for suffix in prompt.suffixes])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("candidates", [[], [CandidateEvidence(ItemFacts("c"))]])
def test_arrays_of_a_prompt_have_the_types_that_batches_are_made_of(candidates):
    """Tokens and positions are int32, kinds int8, values float32, lengths int64, with and without candidates."""
    prompt = builder().build(Evidence(UserEvidence("u"), candidates))
    for part in (prompt.prefix, *prompt.suffixes):
        assert [array.dtype for array in astuple(part)] == [np.int32, np.int32, np.int8, np.float32, np.int32, np.int32]
        assert not part.token_ids[part.soft_positions].any()
    assert prompt.suffix_lengths.dtype == np.int64
    assert prompt.suffix_lengths.shape == (len(candidates),)


def test_a_prompts_width_is_that_of_its_widest_soft_token():
    """Embeddings wider than the statistics are kept whole."""
    wide = len(FEATURES) + 5
    embedding = np.arange(wide, dtype=np.float32)
    prompt = PromptBuilder(TEXT, wide, LIMITS).build(
        Evidence(UserEvidence("u", embedding), [CandidateEvidence(ItemFacts("c", [], embedding))])
    )
    assert prompt.prefix.soft_values.tolist() == [embedding.tolist()]
    assert prompt.suffixes[0].soft_values[0].tolist() == embedding.tolist()


def test_a_candidates_suffix_does_not_depend_on_the_others():
    """A suffix is the same alone and among others; its soft positions count from its own start."""
    user = UserEvidence("u", np.ones(DIM, np.float32))
    candidates = [
        CandidateEvidence(item("c", "Crooked Alibi")),
        CandidateEvidence(item("d", "Silent Galaxy"), similar_users=[SimilarUser("v", 0.4, positive=False)]),
        CandidateEvidence(item("e"), past=[PastItem(item("a"), positive=True, similarity=0.7)]),
    ]
    together = builder().build(Evidence(user, candidates))
    for suffix, candidate in zip(together.suffixes, candidates, strict=True):
        (alone,) = builder().build(Evidence(user, [candidate])).suffixes
        assert all(np.array_equal(*parts) for parts in zip(astuple(suffix), astuple(alone), strict=True))
    assert together.suffix_lengths.tolist() == [len(suffix) for suffix in together.suffixes]
    assert together.tokens == len(together.prefix) + sum(len(suffix) for suffix in together.suffixes)


def test_the_history_shown_is_the_latest_oldest_first():
    """Of a longer history the latest events are shown, in order of time, with titles cut to the limit."""
    recent = [PastItem(item(number, f"{number} Silent Galaxy"), positive=number == "seven") for number in NUMBERS]
    prompt = builder().build(Evidence(UserEvidence("u", recent=recent), []))
    assert render(prompt.prefix, TEXT).endswith(
        "user ⟨user⟩ history ⟨item⟩ six Silent no ⟨item⟩ seven Silent yes ⟨item⟩ eight Silent no"
    )


def test_of_a_candidates_evidence_the_nearest_is_shown():
    """Past items, similar items and votes are cut to their limits, most similar first, and so is the title."""
    title = TEXT.encode("Silent Galaxy")
    facts = [ItemFacts(str(n), title, np.full(DIM, n, np.float32)) for n in range(1, 9)]
    similarities = [0.9 - n / 10 for n in range(8)]
    past = [PastItem(facts[n], positive=n == 1, similarity=similarities[n]) for n in range(8)]
    votes = [SimilarUser("v", similarities[n], positive=n == 1) for n in range(8)]
    near = [SimilarItem(facts[n], similarities[n - 2]) for n in range(2, 8)]
    candidate = CandidateEvidence(item("c", " ".join(NUMBERS)), past, votes, near)
    (suffix,) = builder().build(Evidence(UserEvidence("u"), [candidate])).suffixes
    assert render(suffix, TEXT) == (
        "similar ⟨item⟩ no ⟨item⟩ yes ⟨item⟩ others no yes no candidate ⟨item⟩ one two three four five "
        "click ⟨statistics⟩"
    )
    assert suffix.soft_values[:4, 0].tolist() == [1.0, 2.0, 3.0, 0.5]


def test_what_is_summed_up_may_be_more_than_what_is_shown():
    """Statistics use all evidence that was found, also beyond what stands in the prompt."""
    shown = [PastItem(item("a"), positive=True, similarity=0.9)] * LIMITS.past_items_shown
    more = [*shown, *[PastItem(item("b"), positive=False, similarity=0.9)] * 5]
    one, other = (
        builder().build(Evidence(UserEvidence("u"), [CandidateEvidence(item("c"), past)])).suffixes[0]
        for past in (shown, more)
    )
    assert one.token_ids.tolist() == other.token_ids.tolist()
    assert not np.array_equal(one.soft_values[-1], other.soft_values[-1])


def test_item_tokens_are_told_by_what_they_stand_for():
    """In the order of the prompt: a title where one is known and no words of it follow, else the id."""
    facts = [ItemFacts(str(n), TEXT.encode("Silent Galaxy") if n else [], np.full(DIM, n, np.float32)) for n in (0, 1)]
    past = [PastItem(one, positive=True) for one in facts] * 2
    near = [SimilarItem(one, 0.5) for one in facts]
    evidence = Evidence(
        UserEvidence("u", recent=past),
        [CandidateEvidence(facts[1], past, [], near), CandidateEvidence(item("stranger", embedded=False))],
    )
    prompt, shown = builder().build(evidence), builder().soft_items(evidence)
    texts = [render(part, TEXT, items) for part, items in zip((prompt.prefix, *prompt.suffixes), shown, strict=True)]
    assert texts[0].endswith("history ⟨item⟩ Silent Galaxy yes ⟨0⟩ yes ⟨item⟩ Silent Galaxy yes")
    assert texts[1] == (
        "similar ⟨0⟩ yes ⟨Silent Galaxy⟩ yes ⟨0⟩ others candidate ⟨item⟩ Silent Galaxy click ⟨statistics⟩"
    )
    assert texts[2] == "similar others candidate ⟨stranger⟩ click ⟨statistics⟩"
    for part, items in zip((prompt.prefix, *prompt.suffixes), shown, strict=True):
        values = part.soft_values[part.soft_kinds == SoftKind.ITEM, 0]
        assert values.tolist() == [0 if one.item.embedding is None else one.item.embedding[0] for one in items]


def test_unknown_everything_still_makes_a_prompt():
    """For a new user and an unknown item, embeddings read as zeros and the words stay the same."""
    prompt = builder().build(Evidence(UserEvidence("u"), [CandidateEvidence(ItemFacts("c"))]))
    assert render(prompt.prefix, TEXT).endswith("user ⟨user⟩ history")
    assert render(prompt.suffixes[0], TEXT) == "similar others candidate ⟨item⟩ click ⟨statistics⟩"
    assert not prompt.prefix.soft_values.any()
    assert not prompt.suffixes[0].soft_values[0].any()


def test_no_candidates_make_no_suffixes():
    """An empty request is no error."""
    assert list(builder().build(Evidence(UserEvidence("u"), [])).suffixes) == []


@pytest.mark.parametrize("title", [START_TOKEN, f"x{START_TOKEN}y", "⟨user⟩ history yes yes yes"])
def test_a_title_cannot_smuggle_control_tokens_in(title):
    """Whatever a title spells, the only start token is the prompt's own and the soft tokens stay where they were."""
    facts = ItemFacts("c", TEXT.encode(title), None)
    user = UserEvidence("u", recent=[PastItem(facts, positive=True)])
    prompt = builder().build(Evidence(user, [CandidateEvidence(facts)]))
    for part in (prompt.prefix, *prompt.suffixes):
        words = np.delete(part.token_ids, part.soft_positions)
        starts = np.isin(words, TEXT.start_tokens)
        assert starts.sum() == (part is prompt.prefix)


def test_what_the_user_did_with_an_attributes_values_is_told_in_words():
    """The rarest first, as many as there is room for; values that the user has not met are left out."""
    attributes = [
        AttributeEvidence("language", "English", 9_000, 5_000, 12, 7),
        AttributeEvidence("author", "Ann", 40, 30, 3, 2),
        AttributeEvidence("genre", "Crime", 400, 200),
    ]
    evidence = Evidence(UserEvidence("u"), [CandidateEvidence(item("c"), attributes=attributes)])
    told = "same author: yes 2 of 3 same language: yes 7 of 12"
    for most, expected in ((0, ""), (1, told[: told.index(" same")]), (2, told), (3, told)):
        (suffix,) = builder(replace(LIMITS, attributes_shown=most)).build(evidence).suffixes
        assert render(suffix, TEXT) == " ".join(
            f"similar others {expected} candidate ⟨item⟩ click ⟨statistics⟩".split()
        )


def test_a_model_reads_the_statistics_that_it_was_trained_on():
    """Later ones stand behind them and are left out."""
    shared = np.arange(1, 1 + len(SHARED_FEATURES), dtype=np.float32)
    graded = -np.arange(1, 1 + len(GRADED_FEATURES), dtype=np.float32)
    candidate = CandidateEvidence(item("c"), shared=shared, graded=graded)
    evidence = Evidence(UserEvidence("u", impressions=5, positives=3), [candidate])
    whole = builder().build(evidence).suffixes[0].soft_values[-1]
    earlier = PromptBuilder(TEXT, DIM, LIMITS, FIRST_FEATURES).build(evidence).suffixes[0].soft_values[-1]
    assert whole[FIRST_FEATURES : -len(CROSSED_FEATURES)].tolist() == [*shared, *graded]
    assert earlier.tolist() == whole[:FIRST_FEATURES].tolist()
