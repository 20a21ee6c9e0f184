"""Training examples in shards: all in memory, or one shard at a time from disk. Training does the same steps with both.

Each example goes to a shard drawn at random. A shard is therefore a random sample of the whole, and to shuffle the
shards, and the examples within each, mixes well although only one shard is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from training.replay import Example

CANDIDATES_PER_SHARD: Final = 65_536
"""So many take about 200 MB of memory with embeddings of 64 numbers."""

Keep = Callable[[Iterable[Example], int, int], "ShardedExamples"]
"""Keeps examples, given about how many candidates they have, and a seed."""


class ShardedExamples(Sequence[Example]):
    """A sequence of examples, shard after shard. It is quick to read in order, not at random.

    Args:
        open_shard: the examples of a shard, by number.
        tokens: of each shard the number of tokens of each example, (examples,).
        candidates: the same for their candidates.
    """

    def __init__(
        self,
        open_shard: Callable[[int], Sequence[Example]],
        tokens: Sequence[NDArray[np.int64]],
        candidates: Sequence[NDArray[np.int64]],
    ) -> None:
        self._open = open_shard
        self._opened: tuple[int, Sequence[Example]] | None = None
        self.tokens, self.candidates = tuple(tokens), tuple(candidates)
        self._starts = np.cumsum([0, *(len(shard) for shard in tokens)])

    @classmethod
    def of(cls, shards: Sequence[Sequence[Example]]) -> ShardedExamples:
        """Of examples in memory."""
        tokens = [np.array([example.prompt.tokens for example in shard], np.int64) for shard in shards]
        candidates = [np.array([len(example) for example in shard], np.int64) for shard in shards]
        return cls(shards.__getitem__, tokens, candidates)

    def shard(self, number: int) -> Sequence[Example]:
        """The examples of a shard."""
        if self._opened is None or self._opened[0] != number:
            self._opened = None  # first, so that two are not in memory
            self._opened = number, self._open(number)
        return self._opened[1]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[Example]:
        return chain.from_iterable(map(self.shard, range(len(self.tokens))))

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | Sequence[Example]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        at = range(len(self))[place]
        number = int(np.searchsorted(self._starts, at, side="right")) - 1
        return self.shard(number)[at - int(self._starts[number])]


def in_memory(examples: Iterable[Example], candidates: int, seed: int) -> ShardedExamples:
    """Keep examples in memory: a `Keep`."""
    shards: list[list[Example]] = [[] for _ in range(shard_count(candidates))]
    for number, example in with_shard_numbers(examples, candidates, seed):
        shards[number].append(example)
    return ShardedExamples.of([shard for shard in shards if shard])


def shard_count(candidates: int) -> int:
    """Number of shards for so many candidates."""
    return max(1, -(-candidates // CANDIDATES_PER_SHARD))


def with_shard_numbers(examples: Iterable[Example], candidates: int, seed: int) -> Iterator[tuple[int, Example]]:
    """Each example with the number of its shard, which depends on the seed and the example's place alone."""
    shards, random = shard_count(candidates), np.random.default_rng([seed, 2])
    for example in examples:
        yield int(random.integers(shards)), example
