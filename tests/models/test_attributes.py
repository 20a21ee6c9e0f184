"""What an item's attributes and title are taken apart into."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.attributes import MOST_VALUES, MOST_WORDS, TITLE, TITLE_HEAD, attribute_values, title_words


def test_an_attribute_can_hold_several_values():
    """Commas, semicolons and bars stand between them; attributes come in the order of their names."""
    found = attribute_values({"genres": "Comedy, Drama|Comedy;Sci-Fi", "author": "Ann Onymous"})
    assert [(value.name, value.text) for value in found] == [
        ("author", "Ann Onymous"),
        ("genres", "Comedy"),
        ("genres", "Drama"),
        ("genres", "Sci-Fi"),
    ]


@pytest.mark.parametrize("written", ["J.K. Rowling", "J. K. Rowling", "J K ROWLING", " j.k.rowling "])
def test_case_spaces_and_full_stops_make_no_other_value(written):
    """One author, however the catalogue writes the name."""
    assert [value.key for value in attribute_values({"author": written})] == ["jkrowling"]


def test_the_same_word_under_two_names_is_two_values():
    """A desk named Paris is not the city."""
    assert len(attribute_values({"city": "Paris", "desk": "Paris"})) == 2


def test_a_title_gives_its_longer_words_once():
    """Behind its head; words of one or two letters and repetitions are left out."""
    found = title_words("The Station: a Station in the Dark")
    assert [word.key for word in found] == ["thestation", "the", "station", "dark"]
    assert [word.name for word in found] == [TITLE_HEAD, TITLE, TITLE, TITLE]
    assert title_words(None) == title_words(" ?! ") == []


@pytest.mark.parametrize(
    ("title", "head"),
    [
        ("Emma", "emma"),
        ("Emma (Penguin Classics)", "emma"),
        ("EMMA: A Novel", "emma"),
        ("It", "it"),
        ("(Untitled)", "untitled"),
        ("[1984]: a novel", "1984anovel"),
    ],
)
def test_a_titles_head_is_what_stands_before_a_colon_or_a_bracket(title, head):
    """Editions have it in common; where nothing stands before it, the whole title is the head. It is no word."""
    first, *rest = title_words(title)
    assert (first.name, first.key) == (TITLE_HEAD, head)
    assert all(word.name == TITLE for word in rest)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=200), max_size=5), st.text(max_size=300))
def test_whatever_a_catalogue_holds_there_is_room(attributes, title):
    """Distinct, none empty, and no more than the columns hold."""
    values, words = attribute_values(attributes), title_words(title)
    for found, most in ((values, MOST_VALUES), (words, MOST_WORDS)):
        assert len(found) <= most
        assert len({(value.name, value.key) for value in found}) == len(found)
        assert all(value.key for value in found)


def test_an_endless_text_is_cut():
    """A catalogue's mistake takes no memory to speak of."""
    assert len(attribute_values({"blurb": "x" * 1_000_000})[0].key) < 1_000
    assert len(title_words("y" * 1_000_000)[0].key) < 1_000
