"""The texts of a template as tokens."""

from __future__ import annotations

import gc
import weakref

import msgspec
import pytest

from models.evidence import AttributeEvidence, SimilarUser
from models.prompt_lines import TITLE, PromptLines, Slot, fixed_texts
from models.prompt_template import TERSE, WORDS
from models.text import Text

TEXT = Text.train(["Silent Galaxy 0 1 2 3 4 5 6 7 8 9"], 600)


def lines(template=WORDS, **texts):
    """The lines of a template with other texts."""
    return PromptLines(msgspec.structs.replace(template, **texts), TEXT.encode, TEXT.start_tokens)


def voters(*positive):
    """Similar users and what they did."""
    return [SimilarUser(f"u{number}", 0.5, answer) for number, answer in enumerate(positive)]


def decoded(told):
    """The sentences as text."""
    return [TEXT.decode(tokens).strip() for tokens in told]


def test_votes_are_counted_in_a_sentence_or_told_one_by_one():
    """A sentence counts all; one by one there are as many as the limit; none without voters or with a limit of 0."""
    some = voters(True, False, True)
    assert decoded(lines().votes(some, 1)) == ["similar users: 2 of 3 liked it"]
    assert decoded(lines(TERSE).votes(some, 2)) == ["yes", "no"]
    both = lines(voter="{answer},", votes="{positive} of {count}:")
    assert decoded(both.votes(some, 1)) == ["2 of 3:", "liked,"]
    assert lines().votes(some, 0) == []
    assert lines().votes([], 4) == []


def test_an_attribute_is_told_by_name_or_by_value():
    """The rarest first; what a catalogue writes is cut, and never read as a placeholder."""
    evidence = [
        AttributeEvidence("language", "{count}", 9_000, 5_000, 12, 7),
        AttributeEvidence("a" * 99, "v" * 99, 40, 30, 3, 2),
        AttributeEvidence("genre", "Crime", 400, 200),
    ]
    assert decoded(lines().attributes(evidence, 2)) == [
        f"same {'a' * 24}: liked 2 of 3",
        "same language: liked 7 of 12",
    ]
    by_value = lines(attribute="{value}: {positive}/{count}")
    assert decoded(by_value.attributes(evidence, 5)) == [f"{'v' * 48}: 2/3", "{count}: 7/12"]
    assert lines(attribute="").attributes(evidence, 2) == []


@pytest.mark.parametrize("template", [TERSE, WORDS])
def test_a_line_says_how_long_it_is(template):
    """Words and soft token; a title's tokens come on top."""
    told = PromptLines(template, TEXT.encode)
    for line in (*told.past, *told.similar_past, told.similar_item, told.candidate):
        for about in line:
            assert about.length == sum(1 if isinstance(piece, Slot) else len(piece) for piece in about.pieces) - (
                TITLE in about.pieces
            )
    assert all(TITLE not in line.without_title.pieces for line in told.past)


def test_a_tokenizer_is_told_every_text_that_is_encoded():
    """Those between the numbers of sentences too; of attributes only where prompts tell of them."""
    assert sorted(fixed_texts(TERSE, with_attributes=False)) == sorted(
        ["user", "history", "similar", "others", "candidate", "click", "yes", "no"]
    )
    assert set(fixed_texts(TERSE, with_attributes=True)) - set(fixed_texts(TERSE, with_attributes=False)) == {
        *("same ", ": yes ", " of "),
    }
    texts = fixed_texts(WORDS, with_attributes=True)
    assert len(texts) == len(set(texts))
    assert {"similar users: ", " of ", " liked it\n", '": liked\n', '": disliked\n', " liked\n"} <= set(texts)


def test_lines_that_retire_need_no_collector():
    """A worker freezes what it has loaded, so what is in a cycle would stay for good."""
    gc.collect()
    gc.disable()
    try:
        told = lines()
        told.votes(voters(True), 1)
        told.attributes([AttributeEvidence("author", "Ann", 40, 30, 3, 2)], 1)
        gone = weakref.ref(told)
        del told
        assert gone() is None
    finally:
        gc.enable()
