"""Trains the tokenizer of a model that is trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from models.prompt import PHRASES
from models.text import Text, item_text
from schemas.messages import Item

PHRASE_WEIGHT: Final = 1_000
"""How often each fixed word of the prompt is repeated in the training text: enough to become one token."""


def fit_tokenizer(items: Sequence[Item], vocabulary: int) -> Text:
    """A tokenizer of at most `vocabulary` tokens, trained on the catalogue and the fixed words of the prompt."""
    texts = [item_text(item.title, item.attributes) for item in items]
    return Text.train([*texts, *PHRASES * PHRASE_WEIGHT], vocabulary)
