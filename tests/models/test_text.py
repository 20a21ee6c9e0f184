"""Catalogue text becomes tokens, never control tokens."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from models.text import MAX_TITLE_CHARACTERS, START_TOKEN, Text, item_text
from schemas.messages import Item

TEXT = Text.train(["The Silent Galaxy", "Crooked Alibi"] * 5, 400)


@given(st.text(max_size=60))
@settings(max_examples=60)
def test_any_unicode_survives_the_way_to_tokens_and_back(words):
    """Byte-level tokens lose nothing of valid text; the leading space marks the beginning of a word."""
    assert TEXT.decode(TEXT.encode(words)).removeprefix(" ") == words.removeprefix(" ")


def test_a_control_token_in_a_title_is_mere_text():
    """A title that spells the start token gets the tokens of its letters."""
    assert len(TEXT.start_tokens) == 1
    assert TEXT.start_tokens[0] not in TEXT.encode(f"{START_TOKEN} {START_TOKEN}")


def test_a_saved_tokenizer_splits_control_tokens_too(tmp_path):
    """A loaded tokenizer treats control tokens in texts like the one that was saved."""
    TEXT.save(tmp_path / "tokenizer.json")
    loaded = Text.load(tmp_path / "tokenizer.json")
    assert loaded.start_tokens == TEXT.start_tokens
    assert loaded.encode(START_TOKEN) == TEXT.encode(START_TOKEN)


def test_a_tokenizer_is_saved_as_it_was_read(tmp_path):
    """Its identity does not depend on how the installed release of the library would write it."""
    first, again = tmp_path / "first.json", tmp_path / "again.json"
    TEXT.save(first)
    first.write_text(json.dumps(json.loads(first.read_text())))
    loaded = Text.load(first)
    loaded.save(again)
    assert loaded.content == again.read_bytes() == first.read_bytes()
    assert Text.load(again).encode("The Silent Galaxy") == TEXT.encode("The Silent Galaxy")


def test_an_items_text_is_its_title_and_its_attributes_by_name():
    """Attributes follow in the order of their names, missing parts leave no gap."""
    assert item_text("Solaris", {"year": "1972", "genres": "Sci-Fi"}) == "Solaris, Sci-Fi, 1972"
    assert item_text(None, {"genres": "Drama"}) == "Drama"
    assert item_text(None, {}) == ""


def test_a_title_of_ten_thousand_characters_is_cut():
    """Text beyond the limit is not tokenised."""
    assert len(item_text("x" * 10_000, {})) == MAX_TITLE_CHARACTERS


def test_an_item_without_text_has_no_tokens():
    """No title, no attributes, no tokens."""
    assert TEXT.encode_item(Item(item_id="i")) == []
