"""One request (or one part of a large one) on its way through the stages."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.prompt import Prompt, TokenSequence
from worker.engine.packing import Segment
from worker.engine.prefix_cache import PrefixState
from worker.engine.scheduler import Entry


@dataclass(slots=True)
class Flight:
    """What the stages need of a request, cut down as its candidates leave.

    Args:
        entry: it in the scheduler's numbers.
        prompt: as submitted.
        candidates: (n,) which of the prompt's suffixes are still here.
    """

    entry: Entry
    prompt: Prompt
    candidates: NDArray[np.int64]
    suffix_lengths: NDArray[np.int64] = field(init=False)  # (n,)
    logits: NDArray[np.float64] = field(init=False)  # (n, depth) of the heads passed
    prefix_hidden: Tensor | None = None  # (prefix tokens, hidden), unless the cache had the stage before
    suffix_hidden: Tensor | None = None  # (suffix tokens left, hidden); both None before stage 0
    kept: PrefixState | None = None
    """The prefix as the cache knows it; None without a cache."""

    def __post_init__(self) -> None:
        self.suffix_lengths = self.prompt.suffix_lengths[self.candidates]
        self.logits = np.zeros((len(self.candidates), 0))
        self._count()

    @property
    def prefix_is_kept(self) -> bool:
        """Whether the next stage finds the prefix's keys and values in the cache."""
        return self.kept is not None and self.kept.stages > self.entry.depth

    @property
    def segment(self) -> Segment:
        """Its share of the next batch."""
        rows = 0 if self.prefix_is_kept else len(self.prompt.prefix)
        return Segment(len(self.prompt.prefix), rows, self.suffix_lengths)

    def token_sequences(self) -> list[TokenSequence]:
        """What stage 0 has to embed, in the order of the rows."""
        suffixes = [self.prompt.suffixes[index] for index in self.candidates]
        return suffixes if self.prefix_is_kept else [self.prompt.prefix, *suffixes]

    def hidden_parts(self) -> list[Tensor]:
        """What a later stage starts from, in the order of the rows."""
        prefix = None if self.prefix_is_kept else self.prefix_hidden
        if prefix is None and not self.prefix_is_kept and self.kept is not None:
            # The cache had the stages so far but not this one: go on from where it ends.
            prefix = self.kept.hidden
        return [part for part in (prefix, self.suffix_hidden) if part is not None]

    def arrive(self, logits: NDArray[np.float64]) -> None:
        """Take a head's logits (n,) and stand one deeper."""
        self.logits = np.concatenate([self.logits, logits[:, None]], axis=1)
        self.entry.depth += 1
        self._count()

    def keep(self, staying: NDArray[np.bool_]) -> None:
        """Let the others go: their rows are no longer computed."""
        if staying.all():
            return
        rows = np.flatnonzero(np.repeat(staying, self.suffix_lengths))
        if self.suffix_hidden is not None:
            self.suffix_hidden = self.suffix_hidden[torch.from_numpy(rows).to(self.suffix_hidden.device)]
        self.candidates = self.candidates[staying]
        self.suffix_lengths = self.suffix_lengths[staying]
        self.logits = self.logits[staying]
        self._count()

    def _count(self) -> None:
        segment = self.segment
        self.entry.prefix_tokens = segment.prefix_rows
        self.entry.suffix_tokens = segment.rows - segment.prefix_rows
