"""Text to token ids and back. No catalogue text can put a control token into a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from schemas.messages import Item

START_TOKEN: Final = "<|start|>"  # noqa: S105 - a token of the vocabulary, no secret
MAX_TITLE_CHARACTERS: Final = 512
"""An item's text is cut here; what follows would not reach the prompt anyway."""


class Text:
    """A tokenizer for the prompt builder.

    Args:
        tokenizer: of any Hugging Face fast tokenizer.
        content: the `tokenizer.json` that it was read from; without, that of the tokenizer.

    Attributes:
        content: the `tokenizer.json`. What was read is kept as it was, so that it does not depend on the release of the
            library how a tokenizer is written.
    """

    def __init__(self, tokenizer: Tokenizer, content: bytes | None = None) -> None:
        # A special token that occurs in a text is split like any other text.
        tokenizer.encode_special_tokens = True
        # The prompt builder cuts texts itself, and knows no padding; a file may ask for either, to any length.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.content = tokenizer.to_str(pretty=True).encode() if content is None else content
        self.start_tokens: Sequence[int] = _start_tokens(tokenizer)

    @classmethod
    def load(cls, path: Path) -> Text:
        """Read a `tokenizer.json`, ours or that of any Hugging Face model."""
        content = path.read_bytes()
        return cls(Tokenizer.from_buffer(content), content)

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> Text:
        """Train a byte-level BPE tokenizer. It can encode any text, not only those it was trained on."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=[START_TOKEN],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    def save(self, path: Path) -> None:
        """Write the `tokenizer.json`."""
        path.write_bytes(self.content)

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        return int(self._tokenizer.get_vocab_size())

    @property
    def largest_token_id(self) -> int:
        """The largest id that `encode` may give; -1 without any token."""
        return max(self._tokenizer.get_vocab().values(), default=-1)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, control tokens never among them."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def encode_item(self, item: Item) -> list[int]:
        """Token ids of an item's catalogue text; empty for an item without any."""
        text = item_text(item.title, item.attributes)
        return self.encode(text) if text else []


def _start_tokens(tokenizer: Tokenizer) -> list[int]:
    """Our own start token; else the one that the tokenizer puts before any text, as those of many checkpoints do.

    A post-processor of a file may name any number as a token; only one of the vocabulary is taken.
    """
    own = tokenizer.token_to_id(START_TOKEN)
    if own is not None:
        return [own]
    return [token for token in tokenizer.encode("").ids[:1] if tokenizer.id_to_token(token) is not None]


def item_text(title: str | None, attributes: Mapping[str, str]) -> str:
    """The text of an item: its title, then the values of its attributes in the order of their names."""
    parts = [title or "", *(attributes[name] for name in sorted(attributes))]
    return ", ".join(part for part in parts if part)[:MAX_TITLE_CHARACTERS]
