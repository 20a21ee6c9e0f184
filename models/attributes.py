"""The single values that items share: `genres: Comedy, Drama` holds two, and a title holds its words.

They are evidence: what a user thought of one book of an author says something about the next.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

MOST_VALUES: Final = 8
"""Values of an item's attributes; further ones are left out."""
MOST_WORDS: Final = 13
"""What a title is taken apart into, at most: its head, and twelve words; further ones are left out."""
SHORTEST_WORD: Final = 3
"""Letters of a word that counts: shorter ones are mostly articles and prepositions."""
TITLE: Final = "title"
"""The name under which a title's words are values."""
TITLE_HEAD: Final = "title head"
"""The name under which a title's head is a value."""
_MOST_CHARACTERS: Final = 512
"""Of a title or of an attribute; what follows is not looked at."""
_AFTER_HEAD: Final = re.compile(r"[:(\[].*", re.DOTALL)
_BETWEEN_VALUES: Final = re.compile(r"[,;|]")
_WORD: Final = re.compile(rf"\w{{{SHORTEST_WORD},}}")


class AttributeValue(NamedTuple):
    """One value of one attribute, as the catalogue writes it, and what it is known by."""

    name: str
    text: str
    key: str
    """Without case, spaces and punctuation, which catalogues use as they like: `J. K. Rowling` is `J.K. Rowling`."""


def attribute_values(attributes: Mapping[str, str]) -> list[AttributeValue]:
    """The distinct values of an item's attributes, in the order of the attributes' names, at most `MOST_VALUES`.

    A comma, a semicolon or a bar stands between two values. A piece without any letter or digit is none.
    """
    found: dict[tuple[str, str], AttributeValue] = {}
    for name in sorted(attributes):
        for piece in _BETWEEN_VALUES.split(attributes[name][:_MOST_CHARACTERS]):
            key = _key(piece)
            if key:
                found.setdefault((name, key), AttributeValue(name, piece.strip(), key))
    return list(found.values())[:MOST_VALUES]


def title_words(title: str | None) -> list[AttributeValue]:
    """A title's head, then its distinct words, as values; nothing of a title without letters and digits.

    The head is what stands before a colon or a bracket: editions of a book and parts of a series often share it.
    """
    text = (title or "")[:_MOST_CHARACTERS]
    head = _AFTER_HEAD.sub("", text).strip()
    key = _key(head) or _key(text)
    if not key:
        return []
    words = dict.fromkeys(_WORD.findall(text.casefold()))
    found = [AttributeValue(TITLE_HEAD, head or text, key), *(AttributeValue(TITLE, word, word) for word in words)]
    return found[:MOST_WORDS]


def _key(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
