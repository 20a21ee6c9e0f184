"""The tokenizer of a model that is trained from scratch."""

from __future__ import annotations

import pytest

from models.prompt_lines import fixed_texts
from models.prompt_template import TERSE, WORDS
from models.text import Text, item_text
from schemas.messages import Item
from training.tokenizer import PHRASE_WEIGHT, fit_tokenizer

ITEMS = [Item(item_id=str(number), title=f"Title number {number} of a long catalogue") for number in range(40)]


def test_the_terse_prompt_has_the_tokenizer_that_it_always_had():
    """Trained on the catalogue and eight words, each of which is one token."""
    words = ("user", "history", "similar", "others", "candidate", "click", "yes", "no")
    before = Text.train([*(item_text(item.title, item.attributes) for item in ITEMS), *words * PHRASE_WEIGHT], 500)
    text = fit_tokenizer(ITEMS, 500)
    assert text.content == before.content
    assert [len(text.encode(word)) for word in words] == [1] * len(words)


@pytest.mark.parametrize("template", [TERSE, WORDS])
def test_a_tokenizer_knows_the_words_of_its_template(template):
    """Each is a token, punctuation apart: whatever the catalogue holds, a prompt is not spelled letter by letter."""
    text = fit_tokenizer(ITEMS, 600, template, with_attributes=True)
    for phrase in fixed_texts(template, with_attributes=True):
        assert len(text.encode(phrase)) <= 2 * len(phrase.split()) + 2, phrase
    other = fit_tokenizer(ITEMS, 600, TERSE if template is WORDS else WORDS)
    assert sum(len(other.encode(phrase)) for phrase in fixed_texts(template, with_attributes=True)) > sum(
        len(text.encode(phrase)) for phrase in fixed_texts(template, with_attributes=True)
    )
