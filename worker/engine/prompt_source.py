"""Where the engine gets prompts and graph scores from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.prompt import Prompt
from worker.engine.scoring_job import ScoringJob

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
"""(n,) positions among a request's candidates."""

JobT_contra = TypeVar("JobT_contra", bound=ScoringJob, contravariant=True)


class PromptSource(Protocol[JobT_contra]):
    """What the engine asks for when a request's turn comes. Either method may raise: the engine contains it."""

    def prepare(self, job: JobT_contra, places: Places) -> Prompt:
        """The prompt for some of a request's candidates, with a suffix for each."""

    def graph_ctr(self, asked: Sequence[tuple[JobT_contra, Places]]) -> list[Floats]:
        """Rates from the graph alone, for candidates that no head can answer in time."""


class ReadyPrompts:
    """A `PromptSource` of prompts that exist already, one per job.

    Args:
        prompts: one per job, in the order of `jobs`.

    Attributes:
        jobs: requests without deadlines for all candidates of each prompt.
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self.jobs = [ScoringJob(len(prompt.suffixes)) for prompt in prompts]
        self._prompts = dict(zip(map(id, self.jobs), prompts, strict=True))

    def prepare(self, job: ScoringJob, places: Places) -> Prompt:
        """See `PromptSource`."""
        prompt = self._prompts[id(job)]
        return Prompt(prompt.prefix, [prompt.suffixes[place] for place in places])

    def graph_ctr(self, asked: Sequence[tuple[ScoringJob, Places]]) -> list[Floats]:
        """No graph here."""
        return [np.full(len(places), np.nan) for _, places in asked]


def check_prompt(prompt: Prompt, candidates: int, max_positions: int) -> None:
    """Checks a prompt before it is scored.

    Args:
        prompt: as it was prepared.
        candidates: that it was asked for.
        max_positions: most tokens that the model reads.

    Raises:
        ValueError: it is for others, a part of it is empty, or it is too long.
    """
    prefix, lengths = len(prompt.prefix), prompt.suffix_lengths
    if len(lengths) != candidates:
        raise ValueError(f"a prompt for {len(lengths)} candidates instead of {candidates}")
    if len(lengths) and (prefix == 0 or not lengths.all()):
        raise ValueError("a prompt needs at least one token in its prefix and in every suffix")
    longest = prefix + int(lengths.max(initial=0))
    if longest > max_positions:
        raise ValueError(f"a prompt of {longest} tokens; this model reads at most {max_positions}")
