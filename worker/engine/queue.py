"""The one queue of a worker: requests wait here, are prepared when their turn comes, and pass stage after stage.

Large requests are cut into parts. The order is: fair shares before bulk, then the earliest deadline. What waits has
no prompt yet, so that evidence is as fresh as it can be and nothing is prepared that cannot be in time. Decides with
plain numbers; knows neither torch nor Kafka.

`now_s` is always the time at which scores that were ready now would be with their reader.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models.prompt import Prompt
from worker.budget.admission import AdmissionEstimate, admissible
from worker.budget.controller import Demand
from worker.engine.part import Part
from worker.engine.scheduler import next_batch, out_of_time
from worker.engine.scoring_job import ScoringJob
from worker.engine.settings import EngineSettings


class StageCosts(Protocol):
    """Predicted seconds, as `worker.engine.cost.CostTable` gives them."""

    def seconds(self, stage: int, tokens: int) -> float:
        """Of one run of a stage over so many tokens."""

    def seconds_to_end(self, depth: int, tokens: int) -> float:
        """Of all stages from a depth on."""

    def observe(self, stage: int, tokens: int, seconds: float) -> None:
        """Learns from one run of a stage."""

    def correct(self, stage: int, tokens: int, seconds: float) -> None:
        """Takes one run of a stage for the truth."""


class RequestQueue:
    """Parts of requests, waiting or prepared.

    Args:
        settings: sizes of parts and batches, patience, safety factor.
        costs: predicts what stages take; may be replaced when they have been measured.
    """

    def __init__(self, settings: EngineSettings, costs: StageCosts) -> None:
        self.costs = costs
        self._settings = settings
        self._sizes = PromptSizes()
        self._waiting: list[Part] = []  # the most urgent first
        self._prepared: list[Part] = []
        self._tickets = 0

    @property
    def waiting(self) -> int:
        """Parts without a prompt."""
        return len(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._prepared)

    def enqueue(self, job: ScoringJob) -> None:
        """Takes in a request, cut into parts; those beyond its fair share are bulk."""
        order_s = min(max(job.due_s, job.arrived_s), job.arrived_s + self._settings.patience_s)
        for start in range(0, len(job), self._settings.part_candidates):
            stop = min(start + self._settings.part_candidates, len(job))
            self._put(Part(job, start, stop, order_s, self._ticket(), bulk=start >= self._settings.fair_candidates))
            # The next part steps back by what this one takes: others come in between.
            order_s += self.costs.seconds_to_end(0, self._sizes.tokens(stop - start))

    def take_unmeetable(self, now_s: float, floor_share: float) -> list[Part]:
        """Removes the waiting parts that can no longer reach the first head before their deadline.

        Args:
            now_s: see above.
            floor_share: share of token-layers executed at the lowest exit threshold.
        """
        if not self._waiting:
            return []
        parts = self._waiting
        kept = admissible(now_s, self._busy_s(), self._admission_estimates(parts, floor_share))
        if kept.all():
            return []
        self._waiting = [part for part, keep in zip(parts, kept, strict=True) if keep]
        return [part for part, keep in zip(parts, kept, strict=True) if not keep]

    def take_all(self) -> list[Part]:
        """Removes every part, waiting or prepared."""
        parts = self._waiting + self._prepared
        self._waiting, self._prepared = [], []
        return parts

    def take_jobs(self, wanted: Callable[[ScoringJob], bool]) -> list[ScoringJob]:
        """Removes the waiting parts of the requests that are wanted; these, in the order of their first parts."""
        taken = dict.fromkeys(part.job for part in self._waiting if wanted(part.job))
        self._waiting = [part for part in self._waiting if part.job not in taken]
        return list(taken)

    def take_next(self, ahead_tokens: float) -> Part | None:
        """Removes the most urgent waiting part, to be prepared; None while so many tokens are prepared already, unless
        it is more urgent than all of these.
        """
        if not self._waiting:
            return None
        if sum(part.tokens for part in self._prepared) >= ahead_tokens and self._waiting[0].urgency > min(
            part.urgency for part in self._prepared
        ):
            return None
        return self._waiting.pop(0)

    def put_prepared(self, part: Part, prompt: Prompt, prepare_s: float) -> Prompt:
        """Takes a part back with its prompt. Candidates that do not fit into one batch wait again.

        Returns:
            The prompt of those that do.
        """
        self._sizes.observe(len(prompt.suffixes), len(prompt.prefix), int(prompt.suffix_lengths.sum()), prepare_s)
        fitting = first_fitting(prompt, self._room(prompt))
        if fitting < len(prompt.suffixes):
            prompt = Prompt(prompt.prefix, prompt.suffixes[:fitting])
            order_s = part.order_s + self.costs.seconds_to_end(0, prompt.tokens)
            self._put(Part(part.job, part.start + fitting, part.stop, order_s, self._ticket(), bulk=part.bulk))
        part.take_prompt(prompt)
        self._prepared.append(part)
        return prompt

    def demands(self) -> list[Demand]:
        """What everything in the queue asks for. Waiting bulk asks for nothing: it takes the time that is left over."""
        demands = []
        for part in self._prepared:
            next_head_s = self.costs.seconds(part.depth, part.tokens)
            beyond_s = self.costs.seconds_to_end(part.depth, part.tokens) - next_head_s
            demands.append(Demand(part.job.due_s, part.job.budget_s, beyond_s, next_head_s))
        forecast = self._forecasts(0.0)
        for part in self._waiting:
            if not part.bulk:
                expected = forecast(len(part))
                demands.append(Demand(part.job.due_s, part.job.budget_s, expected.beyond_s, expected.first_head_s))
        return demands

    def out_of_time(self, now_s: float) -> list[Part]:
        """The prepared parts that have no time for another stage and may leave; they stay until they are removed."""
        return out_of_time(self._prepared, now_s, self._careful_cost)

    def next_batch(self, now_s: float) -> list[Part]:
        """The prepared parts to run through their next stage together; empty if there are none."""
        if not self._prepared:
            return []
        stage = min(self._prepared, key=attrgetter("urgency")).depth
        return next_batch(self._prepared, now_s, self.step_tokens(stage), self._careful_cost)

    def step_tokens(self, stage: int) -> int:
        """Tokens that one step of a stage should not exceed: the largest batch, halved until it is predicted to take no
        longer than a step may.
        """
        tokens = self._settings.max_batch_tokens
        while tokens > LEAST_STEP_TOKENS and self.costs.seconds(stage, tokens) > self._settings.max_step_s:
            tokens //= 2
        return tokens

    def _room(self, prompt: Prompt) -> int:
        """Tokens of a prompt's prefix and candidates in one part. A prefix that would leave them less than a quarter of
        a step is computed by itself.
        """
        most = min(max(self.step_tokens(0), LEAST_PART_TOKENS), self._settings.max_batch_tokens)
        return most if len(prompt.prefix) <= most * 3 // 4 else most + len(prompt.prefix)

    def step_back(self, part: Part, tokens: int) -> None:
        """A chunk of a part's prefix was computed: it steps back by what that takes, as the parts of a large request
        do.
        """
        part.step_back(self.costs.seconds(part.depth, tokens), part.job.arrived_s + self._settings.patience_s)

    def remove(self, part: Part) -> None:
        """Forgets a prepared part: its candidates are answered."""
        self._prepared.remove(part)

    def _put(self, part: Part) -> None:
        insort(self._waiting, part, key=attrgetter("urgency"))

    def _ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def _careful_cost(self, stage: int, tokens: int) -> float:
        return self.costs.seconds(stage, tokens) * self._settings.safety_factor

    def _busy_s(self) -> float:
        """Seconds until every prepared part has passed one more head."""
        tokens: dict[int, int] = {}
        for part in self._prepared:
            tokens[part.depth] = tokens.get(part.depth, 0) + part.tokens
        return sum(self.costs.seconds(stage, count) for stage, count in tokens.items())

    def _admission_estimates(self, parts: list[Part], floor_share: float) -> list[AdmissionEstimate]:
        forecast = self._forecasts(floor_share)
        estimates = []
        for part in parts:
            expected = forecast(len(part))
            estimates.append(
                AdmissionEstimate(part.job.deadline_s, expected.first_head_s, expected.least_s, part.job.may_be_late)
            )
        return estimates

    def _forecasts(self, floor_share: float) -> Callable[[int], _Forecast]:
        """Predictions by number of candidates, as of now: many parts that wait have the same number."""

        @cache
        def forecast(candidates: int) -> _Forecast:
            tokens = self._sizes.tokens(candidates)
            prepare_s = self._sizes.prepare_s(candidates)
            first_s, full_s = self.costs.seconds(0, tokens), self.costs.seconds_to_end(0, tokens)
            return _Forecast(prepare_s + first_s, prepare_s + max(first_s, floor_share * full_s), full_s - first_s)

        return forecast


def first_fitting(prompt: Prompt, max_tokens: int) -> int:
    """How many of the prompt's first candidates fit into a batch together with the prefix; at least one."""
    ends: NDArray[np.int64] = len(prompt.prefix) + np.cumsum(prompt.suffix_lengths)
    return max(int(np.searchsorted(ends, max_tokens, side="right")), 1)


class _Forecast(NamedTuple):
    """Seconds that one part takes."""

    first_head_s: float
    """From the beginning, preparation included."""
    least_s: float
    """The same at the lowest threshold."""
    beyond_s: float
    """From the first head to full depth."""


class PromptSizes:
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
        """Predicted tokens of a prompt."""
        return round(self._prefix_tokens + self._suffix_tokens * candidates)

    def prepare_s(self, candidates: int) -> float:
        """Predicted seconds of retrieval and prompt building."""
        return self._prepare_s + self._prepare_candidate_s * candidates

    def observe(self, candidates: int, prefix_tokens: int, suffix_tokens: int, prepare_s: float) -> None:
        """Learns from one part that was prepared."""
        self._prefix_tokens += _WEIGHT * (prefix_tokens - self._prefix_tokens)
        self._suffix_tokens += _WEIGHT * (suffix_tokens / candidates - self._suffix_tokens)
        # One measurement, two unknowns: both are scaled alike.
        surprise = prepare_s / self.prepare_s(candidates)
        scale = 1 + _WEIGHT * (min(surprise, _LARGEST_SURPRISE) - 1)
        self._prepare_s *= scale
        self._prepare_candidate_s *= scale


LEAST_STEP_TOKENS: Final = 256
"""Smaller steps would spend their time on reading weights."""
LEAST_PART_TOKENS: Final = 1_024
"""Candidates are not cut further apart: without a cache each part computes the prefix anew."""
_WEIGHT: Final = 0.05
_LARGEST_SURPRISE: Final = 10.0
