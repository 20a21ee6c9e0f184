"""Requests that have been taken in and not begun: in what order they are served, and which cannot be in time.

Decides with plain numbers; knows neither torch nor Kafka.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

from worker.budget import Candidature, Demand, admissible
from worker.jobs import Part


class StageCosts(Protocol):
    """Predicted seconds, as `worker.engine.cost.CostTable` gives them."""

    def seconds(self, stage: int, tokens: int) -> float:
        """Of one run of a stage over so many tokens."""

    def seconds_to_end(self, depth: int, tokens: int) -> float:
        """Of all stages from a depth on."""


class WaitingRoom:
    """Parts by urgency: fair shares before bulk, then the earliest deadline.

    Args:
        sizes: predicts what a part will ask for.
        costs: predicts what that takes.
        floor_share: share of token-layers executed at the lowest exit threshold.
    """

    def __init__(self, sizes: PartSizes, costs: StageCosts, floor_share: float) -> None:
        self._sizes = sizes
        self._costs = costs
        self._floor_share = floor_share
        self._parts: list[Part] = []

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, parts: Sequence[Part]) -> None:
        """Lets them wait."""
        self._parts.extend(parts)
        # Nearly sorted already, which is what the sort is quick at; the most urgent last, to be taken off the end.
        self._parts.sort(key=attrgetter("urgency"), reverse=True)

    def take(self) -> Part:
        """The most urgent part.

        Raises:
            IndexError: nobody waits.
        """
        return self._parts.pop()

    def take_hopeless(self, now_s: float, busy_s: float, margin_s: float) -> list[Part]:
        """The parts that cannot reach the first head before their deadline any more; they wait no longer."""
        if not self._parts:
            return []
        in_order = self._parts[::-1]
        forecast = self._forecasts()
        candidatures = []
        for part in in_order:
            expected = forecast(len(part))
            candidatures.append(
                Candidature(part.job.deadline.at, expected.first_head_s, expected.least_s, part.may_be_late)
            )
        kept = admissible(now_s, busy_s, candidatures, margin_s)
        if kept.all():
            return []
        self._parts = [part for part, keep in zip(in_order, kept, strict=True) if keep][::-1]
        return [part for part, keep in zip(in_order, kept, strict=True) if not keep]

    def demands(self, margin_s: float) -> list[Demand]:
        """What those that wait ask for. Bulk asks for nothing: it takes the time that is left over."""
        forecast = self._forecasts()
        demands = []
        for part in self._parts:
            if not part.bulk:
                expected = forecast(len(part))
                due_s, budget_s = part.job.due_s - margin_s, part.job.budget_s
                demands.append(Demand(due_s, budget_s, expected.beyond_s, expected.first_head_s))
        return demands

    def _forecasts(self) -> Callable[[int], _Forecast]:
        """Predictions by number of candidates, as of now: many that wait have the same number."""

        @cache
        def forecast(candidates: int) -> _Forecast:
            tokens = self._sizes.tokens(candidates)
            prepare_s = self._sizes.prepare_s(candidates)
            first_s, full_s = self._costs.seconds(0, tokens), self._costs.seconds_to_end(0, tokens)
            least_s = max(first_s, self._floor_share * full_s)
            return _Forecast(prepare_s + first_s, prepare_s + least_s, full_s - first_s)

        return forecast


class _Forecast(NamedTuple):
    """Seconds that one part takes."""

    first_head_s: float
    """From the beginning, preparation included."""
    least_s: float
    """The same at the lowest threshold."""
    beyond_s: float
    """From the first head to full depth."""


class PartSizes:
    """What a part of so many candidates will ask for, learned from those before it.

    Args:
        prefix_tokens: first guess of tokens per prefix.
        suffix_tokens: first guess of tokens per candidate.
    """

    def __init__(self, prefix_tokens: float = 100.0, suffix_tokens: float = 25.0) -> None:
        self._prefix_tokens = prefix_tokens
        self._suffix_tokens = suffix_tokens
        self._prepare_s = 0.001
        self._prepare_candidate_s = 0.0001

    def tokens(self, candidates: int) -> int:
        """Predicted tokens in a prompt."""
        return round(self._prefix_tokens + self._suffix_tokens * candidates)

    def prepare_s(self, candidates: int) -> float:
        """Predicted seconds of retrieval and prompt building."""
        return self._prepare_s + self._prepare_candidate_s * candidates

    def learn(self, candidates: int, prefix_tokens: int, suffix_tokens: int, prepare_s: float) -> None:
        """Takes one part that was prepared into account."""
        self._prefix_tokens += _WEIGHT * (prefix_tokens - self._prefix_tokens)
        self._suffix_tokens += _WEIGHT * (suffix_tokens / candidates - self._suffix_tokens)
        # One measurement, two unknowns: both are scaled alike.
        surprise = prepare_s / self.prepare_s(candidates)
        scale = 1 + _WEIGHT * (min(surprise, _LARGEST_SURPRISE) - 1)
        self._prepare_s *= scale
        self._prepare_candidate_s *= scale


_WEIGHT: Final = 0.05
_LARGEST_SURPRISE: Final = 10.0
