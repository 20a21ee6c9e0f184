"""Trains only the embeddings of words that occur in the training examples.

A table of fifty thousand words is most of a small model, and a catalogue has few of them. Adam's step goes through all
that trains: for the whole table it takes twice as long as for four layers of SmolLM2 (57 and 30 ms on one core).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.replay import Example

Words = NDArray[np.int64]


def words_in_use(examples: Iterable[Example]) -> Words:
    """Ids (words,) of all words in the prompts, ascending."""
    words: set[int] = set()
    for example in examples:
        for part in (example.prompt.prefix, *example.prompt.suffixes):
            words.update(part.token_ids.tolist())
            words.update(part.added_ids.tolist())
    return np.array(sorted(words), np.int64)


class WordsInUse(nn.Module):
    """Stands in a table's place while a model trains: the same embeddings, of which some train.

    Args:
        table: is frozen until `merged`.
        words: ids (words,) of those that train.

    Attributes:
        weight: (words, hidden) their embeddings, in the table's format.
    """

    def __init__(self, table: nn.Embedding, words: Words) -> None:
        super().__init__()
        self._table = table.requires_grad_(requires_grad=False)
        self._words: Tensor
        self.register_buffer("_words", torch.from_numpy(words), persistent=False)
        places = torch.full((table.num_embeddings,), -1)
        places[self._words] = torch.arange(len(words))
        self._places: Tensor
        self.register_buffer("_places", places, persistent=False)  # (vocabulary,) rows of `weight`, or -1
        self.weight = nn.Parameter(table.weight.detach()[self._words].clone())

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (…, hidden) of words (…,); others than those that train are looked up in the table."""
        places = self._places[ids]
        trained = functional.embedding(places.clamp_min(0), self.weight)
        return torch.where((places >= 0).unsqueeze(-1), trained, self._table(ids))

    def merged(self) -> nn.Embedding:
        """The table with what was learned."""
        with torch.no_grad():
            self._table.weight[self._words] = self.weight
        return self._table
