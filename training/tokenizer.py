"""Trains the tokenizer of a model that is trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from models.prompt_lines import fixed_texts
from models.prompt_template import TERSE, PromptTemplate
from models.text import Text, item_text
from schemas.messages import Item
from training.presets import Preset

PHRASE_WEIGHT: Final = 1_000
"""How often each fixed text of the prompt is repeated in the training text: enough for its words to become tokens."""


def fit_tokenizer(
    items: Sequence[Item], vocabulary: int, template: PromptTemplate = TERSE, *, with_attributes: bool = False
) -> Text:
    """A tokenizer of at most `vocabulary` tokens, trained on the catalogue and the fixed words of the prompt.

    Args:
        items: the catalogue.
        vocabulary: most tokens.
        template: the words of the prompt.
        with_attributes: whether prompts tell of attributes.
    """
    texts = [item_text(item.title, item.attributes) for item in items]
    phrases = fixed_texts(template, with_attributes=with_attributes)
    return Text.train([*texts, *phrases * PHRASE_WEIGHT], vocabulary)


def preset_tokenizer(items: Sequence[Item], preset: Preset) -> Text:
    """The tokenizer of a training with this preset."""
    with_attributes = preset.limits.attributes_shown > 0
    return fit_tokenizer(items, preset.vocabulary, preset.template, with_attributes=with_attributes)
