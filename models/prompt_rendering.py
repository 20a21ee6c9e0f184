"""A prompt as a person reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from models.evidence import ItemFacts
from models.prompt import SoftItem
from models.text import Text
from models.token_sequence import SoftKind, TokenSequence

_AROUND_LINE_BREAK: Final = re.compile(r" *\n *")


def render(prompt: TokenSequence, text: Text, items: Sequence[SoftItem] = ()) -> str:
    """A sequence as readable text: words decoded, soft tokens in angle brackets by what they stand for, and behind a
    colon the words that are summed with them. Line breaks of the template stay.

    Args:
        prompt: a prefix or a suffix.
        text: the tokenizer.
        items: what its item tokens stand for (`PromptBuilder.soft_items`). Such a token is shown as ⟨its title⟩, or
            ⟨its id⟩ if it has none; as ⟨item⟩ where the words of the title follow, or without `items`.
    """
    names = iter(items)
    soft: dict[int, list[str]] = {}
    for position, kind in zip(prompt.soft_positions.tolist(), prompt.soft_kinds.tolist(), strict=True):
        soft.setdefault(position, []).append(_soft_name(SoftKind(kind), names, text))
    added: dict[int, list[int]] = {}
    for position, token in zip(prompt.added_positions.tolist(), prompt.added_ids.tolist(), strict=True):
        added.setdefault(position, []).append(token)
    pieces: list[str] = []
    run: list[int] = []
    for position, token in enumerate(prompt.token_ids.tolist()):
        if position in soft or position in added:
            told = ", ".join(soft.get(position, ()))
            words = text.decode(added.get(position, ())).strip()
            pieces += [text.decode(run), f"⟨{': '.join(filter(None, (told, words)))}⟩"]
            run = []
        else:
            run.append(token)
    pieces.append(text.decode(run))
    whole = " ".join(stripped for piece in pieces if (stripped := piece.strip(" ")))
    return _AROUND_LINE_BREAK.sub("\n", whole).strip()


def _soft_name(kind: SoftKind, items: Iterator[SoftItem], text: Text) -> str:
    shown = next(items, None) if kind is SoftKind.ITEM else None
    if shown is None or (shown.title_tokens and shown.item.title_tokens):
        return kind.name.lower()
    return title_of(shown.item, text) or shown.item.item_id


def title_of(item: ItemFacts, text: Text) -> str:
    """An item's catalogue text as far as the model may read it; empty if there is none."""
    return text.decode(item.title_tokens).strip()
