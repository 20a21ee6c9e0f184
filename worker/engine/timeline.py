"""When each step of one request ran; kept for requests that are traced."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """A step; monotonic seconds."""

    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end_s - self.start_s


class StageRun(NamedTuple):
    """A stage that candidates of the request went through, or a chunk of their prefix."""

    stage: int
    """Its head's number."""
    ran: Interval
    places: NDArray[np.int64]
    """(n,) the candidates, among the request's; none for a chunk."""
    tokens: int
    """Computed for these candidates, or in the chunk."""


@dataclass(slots=True)
class Timeline:
    """Steps in the order in which they ran; several of a kind where a request is scored in parts."""

    retrievals: list[Interval] = field(default_factory=list)
    prompts: list[Interval] = field(default_factory=list)
    stages: list[StageRun] = field(default_factory=list)
