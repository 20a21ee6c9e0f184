"""What a prompt shows of the evidence, and what is left out of one that would be too long."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
from models.prompt import PromptBuilder, PromptLimits
from models.prompt_lines import fixed_texts
from models.prompt_selection import Section, fitted
from models.prompt_template import BUILT_IN, TERSE
from models.text import Text
from models.token_sequence import SoftKind
from runtime.errors import PromptTemplateError

DIM = 4
PHRASES = [text for template in BUILT_IN.values() for text in fixed_texts(template, with_attributes=True)]
TEXT = Text.train(["one two three", *PHRASES * 50], 700)
LIMITS = PromptLimits(title_tokens=3, candidate_title_tokens=4, similar_title_tokens=2, attributes_shown=3)

lengths = st.lists(st.integers(1, 9), max_size=5)
sections = st.lists(st.builds(Section, st.integers(0, 4), st.lists(lengths, min_size=1, max_size=2)), max_size=4)


def used(parts, kept):
    """Tokens of what stays."""
    counts, total = iter(kept), 0
    for part in parts:
        stays = [group[: next(counts)] for group in part.groups]
        total += sum(chain(*stays)) + (part.heading if any(stays) else 0)
    return total


@given(parts=sections, room=st.integers(0, 80))
def test_as_much_as_fits_stays(parts, room):
    """What stays fits; a part is touched only when the parts before it are gone, and no entry goes that would fit."""
    kept = fitted(parts, room)
    whole = [len(group) for part in parts for group in part.groups]
    assert used(parts, kept) <= room
    if used(parts, whole) <= room:
        assert kept == whole
        return
    last_cut = max(place for place, (count, all_) in enumerate(zip(kept, whole, strict=True)) if count < all_)
    assert not any(kept[:last_cut])
    assert kept[last_cut + 1 :] == whole[last_cut + 1 :]
    one_more = [*kept[:last_cut], kept[last_cut] + 1, *kept[last_cut + 1 :]]
    assert used(parts, one_more) > room


items = st.builds(
    lambda number, words: ItemFacts(f"i{number}", words, np.full(DIM, number, np.float32), 9, 4),
    st.integers(1, 99),
    st.lists(st.just(TEXT.encode("one")[0]), max_size=6),
)
pasts = st.lists(st.builds(PastItem, items, st.booleans(), st.just(0.5)), max_size=6)
candidates = st.builds(
    CandidateEvidence,
    items,
    pasts,
    st.lists(st.builds(SimilarUser, st.just("v"), st.just(0.5), st.booleans()), max_size=6),
    st.lists(st.builds(SimilarItem, items, st.just(0.5)), max_size=4),
    st.none(),
    st.none(),
    st.lists(
        st.builds(
            AttributeEvidence,
            st.sampled_from(["author", "genre"]),
            st.just("x"),
            st.integers(1, 50),
            st.just(1),
            st.integers(0, 9),
            st.integers(0, 9),
        ),
        max_size=4,
    ),
)


@settings(max_examples=150)
@given(
    template=st.sampled_from(list(BUILT_IN.values())),
    recent=pasts,
    candidate=candidates,
    above=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_a_prompt_is_never_longer_than_its_limits(template, recent, candidate, above):
    """Whole if it fits; else it lacks pieces of the whole one, and none of candidate, question and statistics."""
    evidence = Evidence(UserEvidence("u", recent=recent), [candidate])
    unlimited = PromptBuilder(TEXT, DIM, LIMITS, template=template)
    least = least_limits(template)
    limits = replace(LIMITS, prefix_tokens=least[0] + above[0], suffix_tokens=least[1] + above[1])
    limited = PromptBuilder(TEXT, DIM, limits, template=template)
    whole, cut = unlimited.build(evidence), limited.build(evidence)
    parts = zip((whole.prefix, *whole.suffixes), (cut.prefix, *cut.suffixes), strict=True)
    for (full, short), most in zip(parts, (limits.prefix_tokens, limits.suffix_tokens), strict=True):
        assert len(short) <= most
        assert len(full) > most or same(full, short)
        assert is_subsequence(pieces(short), pieces(full))
    (bare,) = unlimited.build(Evidence(UserEvidence("u"), [CandidateEvidence(candidate.item)])).suffixes
    end = pieces(bare)[2 * template.empty_headings : -1]  # two headings of a token each stand even there
    assert pieces(cut.suffixes[0])[-len(end) - 1 : -1] == end
    assert bare.added_ids.tolist() == cut.suffixes[0].added_ids[-len(bare.added_ids) or len(cut.suffixes[0]) :].tolist()
    np.testing.assert_array_equal(cut.suffixes[0].soft_values[-1], whole.suffixes[0].soft_values[-1])
    again = limited.build(evidence)
    assert same(again.prefix, cut.prefix)
    assert same(again.suffixes[0], cut.suffixes[0])
    for part, shown in zip((cut.prefix, *cut.suffixes), limited.soft_items(evidence), strict=True):
        values = part.soft_values[part.soft_kinds == SoftKind.ITEM, 0].tolist()
        assert values == [one.item.embedding[0] for one in shown]


def least_limits(template):
    """The lowest limits that a builder takes, as its errors tell them."""
    found = []
    for name in ("prefix_tokens", "suffix_tokens"):
        if template.sum_lines and name == "suffix_tokens":  # candidate and question are one token
            found.append(1)
            continue
        with pytest.raises(PromptTemplateError, match=f"{name} 1 is too low") as raised:
            PromptBuilder(TEXT, DIM, replace(LIMITS, **{name: 1}), template=template)
        found.append(int(str(raised.value).split(" tokens alone")[0].split()[-1]))
    return found


def same(one, other):
    """Whether two sequences are the same, numbers included."""
    return all(np.array_equal(*pair) for pair in zip(astuple(one), astuple(other), strict=True))


def pieces(sequence):
    """Tokens in order; of a soft one its kind and its first number."""
    told = [(token,) for token in sequence.token_ids.tolist()]
    soft = {}
    for at, kind, values in zip(sequence.soft_positions, sequence.soft_kinds, sequence.soft_values, strict=True):
        soft[at] = (*soft.get(at, (-1,)), int(kind), float(values[0]))
    for at, of_token in soft.items():
        told[at] = of_token
    for at, token in zip(sequence.added_positions, sequence.added_ids, strict=True):
        told[at] = (*told[at], int(token))
    return told


def is_subsequence(short, full):
    """Whether the one comes of the other by leaving out."""
    rest = iter(full)
    return all(piece in rest for piece in short)


def numbered(count):
    """Items whose embeddings tell their number."""
    return [ItemFacts(f"i{n}", (), np.full(DIM, n, np.float32)) for n in range(count)]


def told_numbers(sequence):
    """The numbers of the items that a sequence shows."""
    return sequence.soft_values[sequence.soft_kinds == SoftKind.ITEM, 0].tolist()


def test_the_oldest_of_the_history_goes_first():
    """The latest stay, oldest first."""
    recent = [PastItem(item, positive=True) for item in numbered(5)]
    limits = replace(LIMITS, prefix_tokens=3 + 1 + 2 * 3)  # start, user, embedding, heading; three items of two tokens
    built = PromptBuilder(TEXT, DIM, limits).build(Evidence(UserEvidence("u", recent=recent), []))
    assert told_numbers(built.prefix) == [2, 3, 4]
    assert len(built.prefix) == limits.prefix_tokens


@pytest.mark.parametrize(
    ("left_out", "items", "words"),
    [
        (0, [0, 1, 2, 3, 9], "similar yes yes others yes same genre: yes 1 of 2 candidate click"),
        (1, [0, 2, 3, 9], "similar yes others yes same genre: yes 1 of 2 candidate click"),
        (2, [0, 2, 3, 9], "similar yes others yes same genre: yes 1 of 2 candidate click"),
        (4, [2, 3, 9], "similar others yes same genre: yes 1 of 2 candidate click"),
        (5, [2, 9], "similar others yes same genre: yes 1 of 2 candidate click"),
        (6, [9], "similar others yes same genre: yes 1 of 2 candidate click"),
        (7, [9], "similar others same genre: yes 1 of 2 candidate click"),
        (8, [9], "similar others candidate click"),
    ],
)
def test_of_a_candidates_evidence_the_least_similar_past_goes_first(left_out, items, words):
    """Then similar items, similar users, attributes; the candidate and its question stay."""
    zero, one, two, three, *_, nine = numbered(10)
    candidate = CandidateEvidence(
        nine,
        [PastItem(zero, positive=True), PastItem(one, positive=True)],
        [SimilarUser("v", 0.5, positive=True)],
        [SimilarItem(two, 0.5), SimilarItem(three, 0.4)],
        attributes=[AttributeEvidence("genre", "x", 9, 4, 2, 1)],
    )
    evidence = Evidence(UserEvidence("u"), [candidate])
    limits = replace(LIMITS, candidate_title_tokens=0)
    whole = PromptBuilder(TEXT, DIM, limits).build(evidence).suffixes[0]
    cut = PromptBuilder(TEXT, DIM, replace(limits, suffix_tokens=len(whole) - left_out)).build(evidence).suffixes[0]
    assert told_numbers(cut) == items
    assert TEXT.decode([token for token, *soft in pieces(cut) if not soft]).strip() == words


def test_entries_that_a_template_leaves_out_take_no_room():
    """Nor do they stand in the prompt."""
    recent = [PastItem(item, positive=True) for item in numbered(3)]
    template = msgspec.structs.replace(TERSE, past="", similar_past="", similar_item="")
    candidate = CandidateEvidence(numbered(9)[8], recent, [], [SimilarItem(recent[0].item, 0.5)])
    built = PromptBuilder(TEXT, DIM, LIMITS, template=template).build(
        Evidence(UserEvidence("u", recent=recent), [candidate])
    )
    assert told_numbers(built.prefix) == []
    assert told_numbers(built.suffixes[0]) == [8]
