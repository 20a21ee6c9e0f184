"""Batches of examples of similar length, because padding costs as much compute as words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from training.replay import Example

SORTED_WITHIN = 50
"""Examples are sorted by length within windows of this many batches: more means less padding and less shuffling."""


def tokens_of(example: Example) -> int:
    """Length of the example's row in a batch: its prefix and all its suffixes."""
    return example.prompt.tokens


def batches(
    examples: Sequence[Example], batch_tokens: int, random: np.random.Generator | None = None
) -> Iterator[list[Example]]:
    """Batches of at most `batch_tokens` tokens, including padding, and of at least one example.

    Args:
        examples: what to batch.
        batch_tokens: the limit.
        random: shuffles examples and batches; None sorts all examples by length.
    """
    lengths = np.array([tokens_of(example) for example in examples])
    order = np.argsort(lengths, kind="stable") if random is None else random.permutation(len(examples))
    window = len(examples) if random is None else max(1, SORTED_WITHIN * batch_tokens // max(1, int(lengths.mean())))
    for start in range(0, len(order), window):
        near = order[start : start + window]
        packed = list(_packed(near[np.argsort(lengths[near], kind="stable")], lengths, batch_tokens))
        if random is not None:
            random.shuffle(packed)
        yield from ([examples[place] for place in batch] for batch in packed)


def _packed(order: np.ndarray, lengths: np.ndarray, batch_tokens: int) -> Iterator[list[int]]:
    """Splits `order` into batches in which the longest row times the number of rows stays within the limit."""
    batch: list[int] = []
    longest = 0
    for place in order.tolist():
        longest = max(longest, int(lengths[place]))
        if batch and longest * (len(batch) + 1) > batch_tokens:
            yield batch
            batch, longest = [], int(lengths[place])
        batch.append(place)
    if batch:
        yield batch
