"""Examples in batches of similar length: padding costs as much as words do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from training.replay import Example

SORTED_WITHIN = 50
"""Batches whose examples are sorted among each other; more pads less, fewer mixes better."""


def tokens_of(example: Example) -> int:
    """Length of the example's row: its prefix and all its suffixes."""
    return example.prompt.tokens


def batches(
    examples: Sequence[Example], batch_tokens: int, random: np.random.Generator | None = None
) -> Iterator[list[Example]]:
    """Batches of at most `batch_tokens` tokens, padding included, but at least one example each.

    Args:
        examples: all of them.
        batch_tokens: the limit.
        random: shuffles examples and batches; None keeps all in order of length.
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
    """Consecutive places while the longest row times their number stays within the limit."""
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
