"""How long a stage takes for so many tokens: measured in warm-up, kept current by every stage that runs.

Per stage a curve through the measured points, straight between them and proportional beyond, times a drift: an
exponential average of measured over predicted. A slower machine (a noisy neighbour, heat) moves the drift alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from models.prompt import Prompt
from models.token_sequence import TokenSequence
from worker.engine.part import Part
from worker.engine.settings import EngineSettings

if TYPE_CHECKING:
    from worker.engine.queue import StageCosts
    from worker.engine.transformer.runner import StageRunner

DRIFT_WEIGHT: Final = 0.1
"""Share of one measurement in the new average: half forgotten after about seven stages."""
LARGEST_SURPRISE: Final = 4.0
"""One measurement counts as at most so many times slower or faster than predicted: a paused process is no trend."""


class NoCosts:
    """Before anything was measured: everything is predicted to take no time."""

    def seconds(self, stage: int, tokens: int) -> float:  # noqa: ARG002 - see `CostTable`
        """See `CostTable`."""
        return 0.0

    def seconds_to_end(self, depth: int, tokens: int) -> float:  # noqa: ARG002 - see `CostTable`
        """See `CostTable`."""
        return 0.0

    def observe(self, stage: int, tokens: int, seconds: float) -> None:
        """See `CostTable`."""

    def correct(self, stage: int, tokens: int, seconds: float) -> None:
        """See `CostTable`."""


class CostTable:
    """Predicted seconds by stage and tokens.

    Args:
        token_counts: (points,) ascending sizes that were measured.
        seconds: (stages, points) measured seconds.

    Raises:
        ValueError: shapes do not match, sizes do not ascend, or a time is not positive.
    """

    def __init__(self, token_counts: Sequence[int], seconds: NDArray[np.float64]) -> None:
        self._tokens = np.asarray(token_counts, np.float64)
        # Noise can make a larger batch look cheaper; a prediction must not.
        self._seconds = np.maximum.accumulate(np.asarray(seconds, np.float64), axis=1)
        if self._seconds.ndim != 2 or self._seconds.shape[1] != len(self._tokens) or len(self._tokens) == 0:
            raise ValueError(f"{len(self._tokens)} sizes but times of shape {self._seconds.shape}")
        if (np.diff(self._tokens, prepend=0.0) <= 0).any() or not (self._seconds > 0).all():
            raise ValueError("sizes must ascend and times must be positive")
        # Asked several times for every request in every step: plain lists are ten times as quick as numpy's scalars.
        self._sizes: list[float] = self._tokens.tolist()
        self._points: list[list[float]] = self._seconds.tolist()
        self._drift = [1.0] * len(self._points)

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self._seconds)

    def seconds(self, stage: int, tokens: int) -> float:
        """Predicted seconds of one run of a stage over so many tokens."""
        lower, share = self._place(tokens)
        return self._between(stage, lower, share)

    def seconds_to_end(self, depth: int, tokens: int) -> float:
        """Predicted seconds of all stages from a depth on, no candidate leaving."""
        lower, share = self._place(tokens)
        return sum(self._between(stage, lower, share) for stage in range(depth, self.stages))

    def observe(self, stage: int, tokens: int, seconds: float) -> None:
        """Learn from one run of a stage."""
        surprise = seconds / max(self.seconds(stage, tokens), 1e-9)
        surprise = min(max(surprise, 1 / LARGEST_SURPRISE), LARGEST_SURPRISE)
        # In logarithms twice as slow and twice as fast weigh the same.
        self._drift[stage] *= surprise**DRIFT_WEIGHT

    def correct(self, stage: int, tokens: int, seconds: float) -> None:
        """Take one run of a stage for the truth, because what was learned before is old."""
        self._drift[stage] *= seconds / max(self.seconds(stage, tokens), 1e-9)

    def _place(self, tokens: int) -> tuple[int, float]:
        """The measured size below, and how far towards the next one; beyond the largest the share is of its time."""
        sizes = self._sizes
        if tokens >= sizes[-1]:
            return len(sizes) - 1, tokens / sizes[-1]
        upper = bisect_right(sizes, tokens)
        if upper == 0:
            return 0, 0.0
        return upper - 1, (tokens - sizes[upper - 1]) / (sizes[upper] - sizes[upper - 1])

    def _between(self, stage: int, lower: int, share: float) -> float:
        points = self._points[stage]
        if lower == len(points) - 1:
            return points[lower] * max(share, 1.0) * self._drift[stage]
        return (points[lower] + share * (points[lower + 1] - points[lower])) * self._drift[stage]


SMALLEST_TOKENS: Final = 128
PREFIX_TOKENS: Final = 128
SUFFIX_TOKENS: Final = 32
BUILDING_LIMIT_S: Final = 3.0
MEASURING_LIMIT_S: Final = 5.0
"""Measuring ends before it would take longer: a model so slow gets fewer measurements, of small batches alone."""


def measure_stages(
    runner: StageRunner, settings: EngineSettings, clock: Callable[[], float]
) -> Generator[None, None, CostTable]:
    """Runs every stage at doubling sizes up to the largest batch, `warm_up_rounds` times, and takes medians: a stage or
    a kernel's build at each step.

    Kernels are built on the way, so that no request pays for their first use. Both have a time limit. What has not been
    measured is predicted from the largest size that has: beyond a few hundred tokens times are proportional.
    """
    runner.build_kernels(settings.max_batch_tokens, BUILDING_LIMIT_S)
    yield
    sizes = [SMALLEST_TOKENS]
    while sizes[-1] * 2 <= settings.max_batch_tokens:
        sizes.append(sizes[-1] * 2)
    first = yield from _one_round(runner, sizes, clock, MEASURING_LIMIT_S)
    sizes = sizes[: len(first)]
    affordable = min(settings.warm_up_rounds, int(MEASURING_LIMIT_S / np.sum(first)))
    rounds = [first]
    while len(rounds) < affordable:
        rounds.append((yield from _one_round(runner, sizes, clock, math.inf)))
    return CostTable(sizes, np.median(rounds, axis=0).T)


def _one_round(
    runner: StageRunner, sizes: Sequence[int], clock: Callable[[], float], limit_s: float
) -> Generator[None, None, list[list[float]]]:
    """Seconds of every stage, (sizes, stages), at as many sizes as will be measured within the limit, but at least one:
    one run at each step.
    """
    seconds: list[list[float]] = []
    spent_s = 0.0
    for size in sizes:
        part = _made_up(size, runner)
        seconds.append([])
        for _ in runner.full_layers:
            taken_s, _ = _run(part, runner, clock)
            seconds[-1].append(taken_s)
            yield
        spent_s += sum(seconds[-1])
        if spent_s + 2 * sum(seconds[-1]) > limit_s:
            break  # the next size takes twice as long
    return seconds


def correct_stages(
    runner: StageRunner, costs: StageCosts, clock: Callable[[], float], rounds: int = 1
) -> Generator[None, None, None]:
    """Runs every stage over a small made-up prompt and corrects its costs by what that took, the median of some rounds:
    one run at each step.
    """
    parts = [_made_up(SMALLEST_TOKENS, runner) for _ in range(rounds)]
    for stage in range(len(runner.full_layers)):
        times: list[float] = []
        for part in parts:
            seconds, tokens = _run(part, runner, clock)
            times.append(seconds)
            if len(times) == rounds:
                costs.correct(stage, tokens, float(np.median(times)))
            yield


def _run(part: Part, runner: StageRunner, clock: Callable[[], float]) -> tuple[float, int]:
    """Takes a part through its next stage; the seconds that took, and the tokens computed."""
    runner.forget_plans()
    with runner.without_prefix_cache():
        started_s = clock()
        logits, tokens = runner.run([part])
        seconds = clock() - started_s
    part.pass_head(logits)
    return max(seconds, 1e-9), sum(tokens)


def _made_up(tokens: int, runner: StageRunner) -> Part:
    """A part of about so many tokens, shaped like a usual one."""
    prefix = min(PREFIX_TOKENS, tokens // 2, max(runner.max_positions // 2, 1))
    suffix = min(SUFFIX_TOKENS, max(runner.max_positions - prefix, 1))
    count = max((tokens - prefix) // suffix, 1)
    return Part.of(Prompt(_words(prefix, runner.soft_width), [_words(suffix, runner.soft_width)] * count))


def _words(length: int, soft_width: int) -> TokenSequence:
    """A sequence that repeats one word; what it says does not change what it costs."""
    return TokenSequence(
        token_ids=np.zeros(length, np.int32),
        soft_positions=np.zeros(0, np.int32),
        soft_kinds=np.zeros(0, np.int8),
        soft_values=np.zeros((0, soft_width), np.float32),
    )
