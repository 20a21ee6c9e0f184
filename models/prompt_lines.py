"""A template for one tokenizer: its texts encoded once, so that building a prompt only strings tokens together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache, partial
from typing import Final, NamedTuple

from models.evidence import AttributeEvidence, SimilarUser
from models.prompt_template import PromptTemplate, pieces_of, plain_texts

_SENTENCES_KEPT: Final = 4_096
"""Of votes and attributes, as tokens: there are few names, and few numbers in a history."""
_NAME_CHARACTERS: Final = 24
_VALUE_CHARACTERS: Final = 48

Tokens = Sequence[int]


class Slot(Enum):
    """What a line leaves open."""

    SOFT = 0
    """One soft token."""
    TITLE = 1
    """Tokens of a catalogue text."""


SOFT: Final = Slot.SOFT
TITLE: Final = Slot.TITLE
"""By names of this module: an enumeration's own are looked up slowly, and every line of a prompt asks for them."""


class Line(NamedTuple):
    """A text of the template: tokens and slots, in order."""

    pieces: tuple[Tokens | Slot, ...]
    length: int
    """Its tokens, the soft one included, without a title's."""
    takes_titles: bool
    """Whether each token of a title is one more."""


class ItemLine(NamedTuple):
    """How an item is told: with and without words of its title."""

    without_title: Line
    with_title: Line

    def about(self, title: Tokens) -> Line:
        """The line for this much of a title."""
        return self.with_title if title else self.without_title


class PromptLines:
    """The lines of a template.

    Attributes:
        opening: the tokenizer's start token and the instruction.
        user: one soft token, the user.
        past: by answer (no, yes).
        similar_past: by answer.
        voter: by answer.
        question: its soft token, the statistics, is last. It takes no token of its own where lines are summed.

    Args:
        template: the words.
        encode: the tokenizer.
        start_tokens: what it puts before any text.
    """

    def __init__(self, template: PromptTemplate, encode: Callable[[str], Tokens], start_tokens: Tokens = ()) -> None:
        self._template = template
        self._encode = encode
        # Not of this object's own methods: it would be in a cycle, and a model that retires leaves none to collect.
        self._votes = lru_cache(maxsize=_SENTENCES_KEPT)(partial(_votes, encode, template.votes))
        self._attribute = lru_cache(maxsize=_SENTENCES_KEPT)(partial(_attribute, encode, template.attribute))
        self._tells_values = "{value}" in template.attribute
        self.opening: Tokens = [*start_tokens, *self._words(template.instruction)]
        self.user = self._line(template.user)
        self.history = self._words(template.history)
        self.past = self._by_answer(template.past)
        self.similar = self._words(template.similar)
        self.similar_past = self._by_answer(template.similar_past)
        self.similar_item = self._item(template.similar_item)
        self.others = self._words(template.others)
        self.voter = [self._words(_filled(template.voter, answer=answer)) for answer in _answers(template)]
        self.candidate = self._item(template.candidate)
        self.question = self._line(template.question)
        if template.sum_lines:  # the two are one token, which there is even where the candidate's line is empty
            self.candidate = ItemLine(*(line._replace(length=1) for line in self.candidate))
            self.question = self.question._replace(length=0)

    def votes(self, voters: Sequence[SimilarUser], most_alone: int) -> list[Tokens]:
        """What similar users did with a candidate: all of them in a sentence, then `most_alone` one by one."""
        if not voters or not most_alone:
            return []
        told: list[Tokens] = []
        if self._template.votes:
            told.append(self._votes(sum([voter.positive for voter in voters]), len(voters)))
        if self._template.voter:
            told += [self.voter[voter.positive] for voter in voters[:most_alone]]
        return told

    def attributes(self, attributes: Sequence[AttributeEvidence], most: int) -> list[Tokens]:
        """What the user did with the values of a candidate's attributes, the rarest value first.

        Values that the user has not met are left out.
        """
        if not most or not attributes or not self._template.attribute:
            return []
        met = sorted((one for one in attributes if one.user_impressions), key=lambda one: one.impressions)
        return [
            self._attribute(one.name, one.value if self._tells_values else "", one.user_positives, one.user_impressions)
            for one in met[:most]
        ]

    def _by_answer(self, text: str) -> list[ItemLine]:
        return [self._item(_filled(text, answer=answer)) for answer in _answers(self._template)]

    def _item(self, text: str) -> ItemLine:
        return ItemLine(self._line(_filled(text, title="")), self._line(_filled(text, title=self._template.title)))

    def _line(self, text: str) -> Line:
        pieces: list[Tokens | Slot] = []
        for words, placeholder in pieces_of(text):
            if words:
                pieces.append(self._words(words))
            if placeholder is not None:
                pieces.append(TITLE if placeholder == "title" else SOFT)
        if self._template.sum_lines:
            return Line(tuple(pieces), int(bool(pieces)), takes_titles=False)
        words_alone = sum(len(piece) for piece in pieces if not isinstance(piece, Slot))
        return Line(tuple(pieces), words_alone + (SOFT in pieces), TITLE in pieces)

    def _words(self, text: str) -> Tokens:
        return self._encode(text) if text else []


def fixed_texts(template: PromptTemplate, *, with_attributes: bool) -> list[str]:
    """Every text of a template that is encoded on its own, once each; of sentences, what stands around the numbers.

    Args:
        template: the words.
        with_attributes: whether prompts tell of attributes.
    """
    texts: dict[str, None] = {}

    def record(text: str) -> Tokens:
        texts[text] = None
        return ()

    PromptLines(template, record)
    for sentence in (template.votes, template.attribute if with_attributes else ""):
        texts |= dict.fromkeys(plain_texts(sentence))
    return list(texts)


def _votes(encode: Callable[[str], Tokens], sentence: str, positive: int, count: int) -> Tokens:
    return encode(_filled(sentence, positive=str(positive), count=str(count)))


def _attribute(
    encode: Callable[[str], Tokens], sentence: str, name: str, value: str, positive: int, count: int
) -> Tokens:
    name, value = name[:_NAME_CHARACTERS], value[:_VALUE_CHARACTERS]
    return encode(_filled(sentence, name=name, value=value, positive=str(positive), count=str(count)))


def _answers(template: PromptTemplate) -> tuple[str, str]:
    return template.negative, template.positive


def _filled(text: str, **values: str) -> str:
    """The text with these placeholders replaced; others stay. What is put in is not searched for placeholders."""
    return "".join(words + ("" if name is None else values.get(name, f"{{{name}}}")) for words, name in pieces_of(text))
