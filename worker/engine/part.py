"""Neighbouring candidates of one request that go through the stages together: their place in the queue and their rows
in a batch. Most requests are one part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.prompt import Prompt
from models.token_sequence import TokenSequence
from worker.engine.prefix import Stretch, unnamed_stretches
from worker.engine.scoring_job import ScoringJob

if TYPE_CHECKING:
    from torch import Tensor


class Part:
    """Waits without a prompt; once prepared, it is cut down as its candidates leave.

    Args:
        job: the request.
        start: its first candidate, among the request's.
        stop: one behind its last.
        order_s: its place in the queue, monotonic seconds.
        ticket: distinguishes parts of the same place, in order of arrival.
        bulk: it is beyond one request's fair share; its turn comes when nobody else waits.

    Attributes:
        urgency: sort key, smaller runs first.
        depth: heads passed.
        prompt: None while it waits.
        candidates: (n,) which of the prompt's suffixes are left.
        suffix_lengths: (n,) their tokens.
        wide: (n,) what every head adds to its logits: the model's regression on the statistics.
        logits: (n, depth) raw logits of the heads passed.
        stretches: the prompt's prefix, in the pieces in which it is kept between requests.
        suffix_hidden: (suffix tokens left, hidden); None before the first stage.
        prefix_tokens: rows of the prefix in the next stage; those that the cache has are none.
        suffix_tokens: rows of the suffixes in the next stage.
    """

    def __init__(
        self, job: ScoringJob, start: int, stop: int, order_s: float = 0.0, ticket: int = 0, *, bulk: bool = False
    ) -> None:
        self.job = job
        self.start = start
        self.stop = stop
        self.bulk = bulk
        self.order_s = order_s
        self.urgency = bulk, order_s, ticket
        self.depth = 0
        self.prompt: Prompt | None = None
        self.candidates: NDArray[np.int64] = np.arange(stop - start)
        self.suffix_lengths: NDArray[np.int64] = np.zeros(0, np.int64)
        self.wide: NDArray[np.float64] = np.zeros(stop - start)
        self.logits: NDArray[np.float64] = np.zeros((stop - start, 0))
        self.stretches: list[Stretch] = []
        self.suffix_hidden: Tensor | None = None
        self.prefix_tokens = 0
        self.suffix_tokens = 0

    @classmethod
    def of(cls, prompt: Prompt) -> Part:
        """A part outside any queue: for warm-up and for traces."""
        part = cls(ScoringJob(len(prompt.suffixes), quality_floor="final_head"), 0, len(prompt.suffixes))
        part.take_prompt(prompt)
        return part

    def __len__(self) -> int:
        return len(self.candidates)

    @property
    def places(self) -> NDArray[np.int64]:
        """(n,) the candidates that are left, among the request's."""
        return self.start + self.candidates

    @property
    def tokens(self) -> int:
        """Rows in the next stage."""
        return self.prefix_tokens + self.suffix_tokens

    @property
    def prefix(self) -> TokenSequence:
        """The prompt's prefix.

        Raises:
            ValueError: it has no prompt yet.
        """
        if self.prompt is None:
            raise ValueError("a part that waits has no prompt")
        return self.prompt.prefix

    @property
    def unknown_stretches(self) -> list[Stretch]:
        """What of the prefix the next stage computes: the rest's keys and values are in the cache."""
        return [stretch for stretch in self.stretches if not stretch.is_known(self.depth)]

    @property
    def prefix_start(self) -> int:
        """Position of the first token of the prefix that the next stage computes."""
        start = 0
        for stretch in self.stretches:
            if not stretch.is_known(self.depth):
                break
            start += len(stretch)
        return start

    @property
    def prefix_length(self) -> int:
        """Tokens of the prefix, for the suffixes' positions."""
        return len(self.prefix)

    @property
    def prefix_rows(self) -> int:
        """Rows of the prefix in the next stage, as the cache stands now."""
        return sum(map(len, self.unknown_stretches))

    def step_back(self, seconds: float, latest_s: float) -> None:
        """Lets others in between: its place in the queue moves back by so much, but not beyond the latest."""
        bulk, _, ticket = self.urgency
        self.order_s = max(self.order_s, min(self.order_s + seconds, latest_s))
        self.urgency = bulk, self.order_s, ticket

    def take_prompt(self, prompt: Prompt) -> None:
        """From waiting to prepared. A prompt of fewer candidates than the part leaves it with its first ones."""
        count = len(prompt.suffixes)
        self.prompt = prompt
        self.stretches = unnamed_stretches(prompt.prefix)
        self.stop = self.start + count
        self.candidates = np.arange(count)
        self.suffix_lengths = prompt.suffix_lengths
        self.wide = np.zeros(count)
        self.logits = np.zeros((count, 0))
        self.count_tokens()

    def token_sequences(self) -> list[TokenSequence]:
        """What the first stage embeds, in the order of the rows.

        Raises:
            ValueError: it has no prompt yet.
        """
        if self.prompt is None:
            raise ValueError("a part that waits has no prompt")
        prefix = [stretch.sequence for stretch in self.unknown_stretches]
        return prefix + [self.prompt.suffixes[index] for index in self.candidates]

    def hidden_rows(self) -> list[Tensor]:
        """What a later stage starts from, in the order of the rows."""
        prefix = [stretch.rows for stretch in self.unknown_stretches]
        return [rows for rows in (*prefix, self.suffix_hidden) if rows is not None]

    def pass_head(self, logits: NDArray[np.float64]) -> None:
        """Takes a head's logits (n,); the next stage is one deeper."""
        self.logits = np.concatenate([self.logits, logits[:, None]], axis=1)
        self.depth += 1
        self.count_tokens()

    def keep(self, staying: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Drops all other candidates.

        Returns:
            (suffix tokens left,) the rows of `suffix_hidden` that stay; `StageRunner.keep` cuts them out.
        """
        rows = np.flatnonzero(np.repeat(staying, self.suffix_lengths))
        self.candidates = self.candidates[staying]
        self.suffix_lengths = self.suffix_lengths[staying]
        self.wide = self.wide[staying]
        self.logits = self.logits[staying]
        self.count_tokens()
        return rows

    def count_tokens(self) -> None:
        """Brings the numbers of rows up to date."""
        self.prefix_tokens = self.prefix_rows
        self.suffix_tokens = int(self.suffix_lengths.sum())
