"""Which requests were sent and how often each was answered: what a promise about delivery is checked with.

Pure, and a few bytes per request: it can keep the books of a run of hours.
"""

from __future__ import annotations

import uuid
from array import array
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_MOST: Final = 255
"""Answers counted per request; beyond, they are all the same fault."""


class Ledger:
    """The requests of one run, numbered, and their answers in each of several outputs.

    Args:
        outputs: the names of the outputs, each of which must answer every request.

    Attributes:
        sent: number of requests so far.
    """

    def __init__(self, outputs: Sequence[str]) -> None:
        self.outputs = tuple(outputs)
        self._name = uuid.uuid4().hex[:8]  # answers to another run's requests must not count here
        self._created_ms = array("d")
        self._answers = {output: bytearray() for output in self.outputs}
        self._latencies_ms = {output: array("f") for output in self.outputs}

    @property
    def sent(self) -> int:
        """Number of requests so far; the next one gets this number."""
        return len(self._created_ms)

    def open(self, created_ms: float) -> str:
        """Enter a new request; returns its id."""
        number = self.sent
        self._created_ms.append(created_ms)
        for output in self.outputs:
            self._answers[output].append(0)
            self._latencies_ms[output].append(float("nan"))
        return f"{self._name}-{number}"

    def answer(self, output: str, request_id: str, read_ms: float) -> None:
        """Enter an answer; that of another run's request is left out."""
        name, _, number = request_id.rpartition("-")
        if name != self._name:
            return
        place, counts = int(number), self._answers[output]
        if counts[place] == 0:
            self._latencies_ms[output][place] = read_ms - self._created_ms[place]
        counts[place] = min(counts[place] + 1, _MOST)

    def missing(self, output: str, first: int = 0) -> list[int]:
        """Numbers of the requests from `first` on that have no answer there."""
        return [first + int(number) for number in np.flatnonzero(self._counts(output, first) == 0)]

    def duplicates(self, output: str, first: int = 0) -> int:
        """Answers beyond the first of each request from `first` on."""
        counts = self._counts(output, first)
        return int(counts.sum() - np.count_nonzero(counts))

    def all_answered(self, numbers: Iterable[int]) -> bool:
        """Whether these requests are answered in every output."""
        return all(self._answers[output][number] for number in numbers for output in self.outputs)

    def latencies(self, output: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Created time and latency of each answered request in ms, in the order of sending."""
        latencies = np.array(self._latencies_ms[output], np.float64)
        answered = np.isfinite(latencies)
        return np.array(self._created_ms)[answered], latencies[answered]

    def _counts(self, output: str, first: int) -> NDArray[np.int64]:
        return np.frombuffer(bytes(self._answers[output][first:]), np.uint8).astype(np.int64)
