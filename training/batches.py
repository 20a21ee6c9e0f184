"""Batches of examples of similar length, because padding costs as much compute as words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.replay import Example
from training.shards import ShardedExamples

SORTED_WITHIN = 50
"""Examples are sorted by length within windows of this many batches: more means less padding and less shuffling."""


class Batch(NamedTuple):
    """Which examples are in a batch.

    Args:
        shard: number of their shard.
        rows: their places in it.
    """

    shard: int
    rows: NDArray[np.int64]  # (examples,)


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
        random: shuffles examples and batches, and shards if there are several; None sorts all examples by length.
    """
    sharded = as_shards(examples)
    for batch in planned(sharded.tokens, batch_tokens, random):
        yield [sharded.shard(batch.shard)[row] for row in batch.rows.tolist()]


def as_shards(examples: Sequence[Example]) -> ShardedExamples:
    """The examples themselves, or as one shard."""
    return examples if isinstance(examples, ShardedExamples) else ShardedExamples.of([examples])


def planned(
    tokens: Sequence[NDArray[np.int64]], batch_tokens: int, random: np.random.Generator | None = None
) -> Iterator[Batch]:
    """The batches of examples of such lengths, shard after shard; nothing but the lengths is read.

    Args:
        tokens: of each shard the length of each example, (examples,).
        batch_tokens: as above.
        random: as above.
    """
    shards = range(len(tokens)) if random is None or len(tokens) == 1 else random.permutation(len(tokens)).tolist()
    for shard in shards:
        yield from (Batch(shard, rows) for rows in _of_shard(tokens[shard], batch_tokens, random))


def _of_shard(
    lengths: NDArray[np.int64], batch_tokens: int, random: np.random.Generator | None
) -> Iterator[NDArray[np.int64]]:
    order = np.argsort(lengths, kind="stable") if random is None else random.permutation(len(lengths))
    window = len(lengths) if random is None else max(1, SORTED_WITHIN * batch_tokens // max(1, int(lengths.mean())))
    for start in range(0, len(order), window):
        near = order[start : start + window]
        packed = list(_packed(near[np.argsort(lengths[near], kind="stable")], lengths, batch_tokens))
        if random is not None:
            random.shuffle(packed)
        yield from packed


def _packed(order: NDArray[np.int64], lengths: NDArray[np.int64], batch_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Splits `order` into batches in which the longest row times the number of rows stays within the limit."""
    first, longest = 0, 0
    for place, length in enumerate(lengths[order].tolist()):
        longest = max(longest, length)
        if place > first and longest * (place - first + 1) > batch_tokens:
            yield order[first:place]
            first, longest = place, length
    if first < len(order):
        yield order[first:]
