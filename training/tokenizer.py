"""The tokenizer of a model trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from models.prompt import PHRASES
from models.text import Text, item_text
from schemas.messages import Item

PHRASE_WEIGHT: Final = 1_000
"""How often the prompt's own words count beside the catalogue's: enough for each to become one token."""


def fit_tokenizer(items: Sequence[Item], vocabulary: int) -> Text:
    """A tokenizer for the catalogue's texts and the prompt's own words, of at most `vocabulary` tokens."""
    texts = [item_text(item.title, item.attributes) for item in items]
    return Text.train([*texts, *PHRASES * PHRASE_WEIGHT], vocabulary)
