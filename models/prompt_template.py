"""The words around the evidence in a prompt, as data that a bundle carries.

A template is a handful of short texts with placeholders in braces. It is never code: a placeholder is a name from a
fixed list, and any other brace is an error. So a bundle from a stranger can choose words, and nothing else.

    prefix     instruction, user, history, then `past` for each of the latest items, oldest first
    suffix     similar, then `similar_past` and `similar_item` for each;  others, then `votes` and `voter` for each;
               `attribute` for each;  candidate, question
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec

from runtime.errors import PromptTemplateError

MOST_CHARACTERS: Final = 1_000
"""Of one text of a template."""
_MOST_BYTES: Final = 65_536
_SHOWN_OF_A_TEXT: Final = 80
_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")

TemplateText = Annotated[str, msgspec.Meta(max_length=MOST_CHARACTERS)]


class PromptTemplate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The texts of a prompt. One that is empty leaves its part out.

    `{user}`, `{item}` and `{statistics}` are soft tokens, `{title}` the words of a catalogue text, `{answer}` one of
    `positive` and `negative`; the others are numbers and names.

    Raises:
        PromptTemplateError: a placeholder is unknown, missing, or named twice; a text holds what none may.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=60)]
    instruction: TemplateText
    user: TemplateText
    """With `{user}`, the embedding of the user."""
    history: TemplateText
    """Heading of the user's latest items."""
    past: TemplateText
    """One of them, with `{answer}`; also `{item}`, `{title}`."""
    title: TemplateText
    """What `{title}` of the other texts becomes, with `{title}`; nothing for an item of which no title is shown."""
    positive: TemplateText
    """The answer for a click."""
    negative: TemplateText
    similar: TemplateText
    """Heading of the user's own items nearest to the candidate, and of items near it in place of its own counts."""
    similar_past: TemplateText
    """One of the former, with `{answer}`; also `{item}`, `{title}`."""
    similar_item: TemplateText
    """One of the latter, with `{item}` or `{title}`."""
    others: TemplateText
    """Heading of what similar users did with the candidate."""
    votes: TemplateText
    """All of them in a sentence, with `{positive}` and `{count}`; left out where there is none."""
    voter: TemplateText
    """One of them, with `{answer}`."""
    attribute: TemplateText
    """What the user did with items that share an attribute's value with the candidate, with `{positive}` and `{count}`;
    also `{name}` of the attribute, `{value}`."""
    candidate: TemplateText
    """With `{title}`; also `{item}`."""
    question: TemplateText
    """It ends with `{statistics}`: there the answer is read, and heads of the first layers see the most telling
    evidence directly."""
    empty_headings: bool
    """Whether a heading stands even where nothing follows it."""
    sum_lines: bool = False
    """Whether each line with a soft token or a title is one token, whose input vector is the sum of its words', its
    title's words' and its soft token's: a position tells a whole item. The question goes into the candidate's token."""

    def __post_init__(self) -> None:
        for text, rule in _RULES.items():
            _check(text, getattr(self, text), rule)
        if not self.question.endswith("{statistics}"):
            raise PromptTemplateError("question must end with {statistics}: the answer is read there")
        if self.positive == self.negative:
            raise PromptTemplateError(
                f"positive and negative are both {self.positive!r}; a click must read differently"
            )
        if not self.name.isprintable():
            raise PromptTemplateError(f"name {self.name!r} holds a control character")


def write_template(template: PromptTemplate, path: Path) -> None:
    """Write it as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(template), indent=1) + b"\n")


def read_template(path: Path) -> PromptTemplate:
    """Read what `write_template` wrote: every text is there, so that it does not depend on this program's own ones.

    Raises:
        ValueError: it is too large or malformed.
        PromptTemplateError: its texts are no template.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"larger than {_MOST_BYTES} bytes")
    try:
        return msgspec.json.decode(path.read_bytes(), type=PromptTemplate)
    except msgspec.ValidationError as error:
        raise PromptTemplateError(str(error)) from error


def pieces_of(text: str) -> Iterator[tuple[str, str | None]]:
    """The text between placeholders and the name of the placeholder behind it; None behind the last."""
    start = 0
    for found in _PLACEHOLDER.finditer(text):
        yield text[start : found.start()], found[1]
        start = found.end()
    yield text[start:], None


def plain_texts(text: str) -> list[str]:
    """The text without its placeholders: what stands between them, as far as anything does."""
    return [piece for piece, _ in pieces_of(text) if piece]


class _Rule(NamedTuple):
    """The placeholders of a text."""

    needed: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    """At least one of these is needed."""
    may_be_empty: bool = True


_RULES: Final = {
    "instruction": _Rule(),
    "user": _Rule(needed=("user",)),
    "history": _Rule(),
    "past": _Rule(needed=("answer",), allowed=("item", "title")),
    "title": _Rule(needed=("title",), may_be_empty=False),
    "positive": _Rule(may_be_empty=False),
    "negative": _Rule(may_be_empty=False),
    "similar": _Rule(),
    "similar_past": _Rule(needed=("answer",), allowed=("item", "title")),
    "similar_item": _Rule(one_of=("item", "title")),
    "others": _Rule(),
    "votes": _Rule(needed=("positive", "count")),
    "voter": _Rule(needed=("answer",)),
    "attribute": _Rule(needed=("positive", "count"), allowed=("name", "value")),
    "candidate": _Rule(needed=("title",), allowed=("item",), may_be_empty=False),
    "question": _Rule(needed=("statistics",), may_be_empty=False),
}


def _check(name: str, text: str, rule: _Rule) -> None:
    told = f"{name} {text[:_SHOWN_OF_A_TEXT]!r}"
    if not text:
        if not rule.may_be_empty:
            raise PromptTemplateError(f"{name} is empty, and a prompt needs it")
        return
    found = [placeholder for _, placeholder in pieces_of(text) if placeholder is not None]
    known = (*rule.needed, *rule.allowed, *rule.one_of)
    offered = ", ".join(f"{{{one}}}" for one in known) or "none"
    for placeholder in found:
        if placeholder not in known:
            raise PromptTemplateError(f"{told}: there is no {{{placeholder}}} here; its placeholders are {offered}")
        if found.count(placeholder) > 1:
            raise PromptTemplateError(f"{told} names {{{placeholder}}} twice; once is all there can be")
    missing = [one for one in rule.needed if one not in found]
    if missing or (rule.one_of and not found):
        wanted = f"{{{missing[0]}}}" if missing else " or ".join(f"{{{one}}}" for one in rule.one_of)
        raise PromptTemplateError(f"{told} lacks {wanted}; its placeholders are {offered}")
    plain = "".join(plain_texts(text))
    if "{" in plain or "}" in plain:
        raise PromptTemplateError(f"{told} holds a brace that is no placeholder; its placeholders are {offered}")
    if not plain.replace("\n", "").isprintable():
        raise PromptTemplateError(f"{told} holds a control character other than a line break")


TERSE: Final = PromptTemplate(
    name="terse",
    instruction="",
    user="user{user}",
    history="history",
    past="{item}{title}{answer}",
    title="{title}",
    positive="yes",
    negative="no",
    similar="similar",
    similar_past="{item}{answer}",
    similar_item="{item}",
    others="others",
    votes="",
    voter="{answer}",
    attribute="same {name}: yes {positive} of {count}",
    candidate="candidate{item}{title}",
    question="click{statistics}",
    empty_headings=True,
)
"""Single words that a model trained from scratch learns by heart. Bundles up to format 3, which carry no template, were
trained on it: it never changes."""
WORDS: Final = PromptTemplate(
    name="words",
    instruction="Judge from what the user liked before whether they will like the next item.\n",
    user="User:{user}\n",
    history="History:\n",
    past="{item}{title}: {answer}\n",
    title=' "{title}"',
    positive="liked",
    negative="disliked",
    similar="Similar:\n",
    similar_past="{item}{title} {answer}\n",
    similar_item="",
    others="",
    votes="similar users: {positive} of {count} liked it\n",
    voter="",
    attribute="same {name}: liked {positive} of {count}\n",
    candidate="Next:{item}{title}\n",
    question="Will they like it?{statistics}",
    empty_headings=False,
)
"""Plain words, which pre-trained weights know."""
COMPACT: Final = msgspec.structs.replace(
    TERSE,
    name="compact",
    history="",
    similar="",
    similar_past="{item}{title}{answer}",
    others="",
    empty_headings=False,
    sum_lines=True,
)
"""One token an item, as sequence recommenders have it: a model trained from scratch need not learn first which words
belong together."""
BUILT_IN: Final = {template.name: template for template in (TERSE, WORDS, COMPACT)}
