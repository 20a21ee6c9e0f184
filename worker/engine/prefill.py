"""Chunked prefill: a long prefix is computed a few stretches at a time, between which other requests have their turn
(the idea: Agrawal et al. 2023, "Sarathi", which cuts prompts so that others' tokens need not wait for their end).

A chunk gives a stage's keys and values, and the rows from which the next stage goes on; the candidates follow with the
last of the prefix. Decides with plain numbers; executes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.token_sequence import TokenSequence
from worker.engine.part import Part
from worker.engine.prefix import Stretch

if TYPE_CHECKING:
    from torch import Tensor


def chunk_due(part: Part, most_tokens: int) -> list[Stretch]:
    """The stretches to compute before the part's next stage can run as a whole; empty when it can.

    Args:
        part: prepared, and looked up in the cache.
        most_tokens: what one step should not exceed. A stretch that is longer is a chunk all the same. Candidates are
            not cut, and a prefix that is little beside them runs with them.
    """
    first, *others = _unknown_runs(part) or [[]]
    is_little = part.prefix_tokens <= part.suffix_tokens // 4
    if not others and (part.tokens <= most_tokens or is_little):
        return []
    chunk: list[Stretch] = []
    tokens = 0
    for stretch in first:
        tokens += len(stretch)
        if chunk and tokens > most_tokens:
            break
        chunk.append(stretch)
    return chunk


def gap_due(part: Part) -> list[Stretch]:
    """The first stretches to compute where the cache knows some that come between those that it does not know: a batch
    computes neighbours only. Empty where that is so.
    """
    first, *others = _unknown_runs(part) or [[]]
    return first if others else []


def _unknown_runs(part: Part) -> list[list[Stretch]]:
    """Neighbours among the stretches that the next stage has to compute."""
    runs: list[list[Stretch]] = []
    open_run = False
    for stretch in part.stretches:
        if stretch.is_known(part.depth):
            open_run = False
            continue
        if not open_run:
            runs.append([])
        runs[-1].append(stretch)
        open_run = True
    return runs


@dataclass(frozen=True, slots=True)
class PrefixChunk:
    """Some neighbouring stretches as a segment of a batch: what a part is, without candidates.

    Args:
        part: whose prefix it is.
        unknown_stretches: what is computed.
    """

    part: Part
    unknown_stretches: Sequence[Stretch]

    @property
    def depth(self) -> int:
        """Heads that the part has passed."""
        return self.part.depth

    @property
    def stretches(self) -> list[Stretch]:
        """The prefix up to the end of the chunk."""
        return list(self._until(self.unknown_stretches[-1]))

    @property
    def prefix_start(self) -> int:
        """Position of the chunk's first token."""
        return sum(map(len, self._until(self.unknown_stretches[0]))) - len(self.unknown_stretches[0])

    @property
    def prefix_rows(self) -> int:
        """The chunk's tokens."""
        return sum(map(len, self.unknown_stretches))

    @property
    def prefix_length(self) -> int:
        """Tokens of the prefix up to the end of the chunk."""
        return self.prefix_start + self.prefix_rows

    @property
    def suffix_lengths(self) -> NDArray[np.int64]:
        """None."""
        return np.zeros(0, np.int64)

    def token_sequences(self) -> list[TokenSequence]:
        """What the first stage embeds."""
        return [stretch.sequence for stretch in self.unknown_stretches]

    def hidden_rows(self) -> list[Tensor]:
        """What a later stage starts from."""
        return [rows for stretch in self.unknown_stretches if (rows := stretch.rows) is not None]

    def _until(self, last: Stretch) -> Iterator[Stretch]:
        for stretch in self.part.stretches:
            yield stretch
            if stretch is last:
                return
