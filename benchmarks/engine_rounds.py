"""Times of `benchmarks.engine`: contestants take turns, so that a slow phase of the machine hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from benchmarks.engine_contestants import Contestant
from benchmarks.engine_requests import Request
from models.prompt import Prompt
from worker.engine.transformer.linear import OneDnnLinear

MATRIX: Final = 2048
MATRIX_FORMATS: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Rounds:
    """Seconds per candidate by contestant, and the speed of a matrix product in the same rounds."""

    seconds: Mapping[str, Sequence[float]]
    matmul_rates: Mapping[str, Sequence[float]]  # floating-point operations per second by number format

    def median(self, name: str) -> float:
        """Seconds per candidate of the middle round."""
        return statistics.median(self.seconds[name])

    def speedup(self, name: str, over: str) -> float:
        """How many times as fast: the median of the rounds' ratios, so that a slow phase of the machine hits both."""
        pairs = zip(self.seconds[over], self.seconds[name], strict=True)
        return statistics.median(slow / fast for slow, fast in pairs)


def run_rounds(
    contestants: Mapping[str, Contestant], requests: Sequence[Request], in_flight: int, rounds: int
) -> Rounds:
    """Every contestant in turn scores the same few requests; then the next few.

    Args:
        contestants: by name.
        requests: those of a round follow on those of the round before, from the start again behind the last.
        in_flight: requests scored together in a round.
        rounds: how many are timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    rates: dict[str, list[float]] = {name: [] for name in MATRIX_FORMATS}
    for number in range(rounds + 1):
        chosen = [requests[(number * in_flight + i) % len(requests)] for i in range(in_flight)]
        prompts = [request.prompt for request in chosen]
        candidates = sum(len(prompt.suffixes) for prompt in prompts)
        for name, contestant in contestants.items():
            contestant.score([_beginning(prompts[0])])  # untimed: the contestant before has filled the caches
            seconds[name].append(timed(contestant.score, prompts) / candidates)
        for name, dtype in MATRIX_FORMATS.items():
            rates[name].append(_product_rate(torch.randn(MATRIX, MATRIX).to(dtype)))
    # The first round warms up.
    return Rounds(*({name: values[1:] for name, values in told.items()} for told in (seconds, rates)))


def _product_rate(matrix: Tensor) -> float:
    """Of the faster of torch's product and this engine's, which wins where torch asks another library."""
    packed = OneDnnLinear(matrix, None)
    products = (lambda: torch.mm(matrix, matrix)), (lambda: packed(matrix))
    return 2 * MATRIX**3 / min(timed(product) for product in products for _ in range(3))


def _beginning(prompt: Prompt) -> Prompt:
    """A few of its candidates."""
    return Prompt(prompt.prefix, prompt.suffixes[:4])


def timed(call: Callable[..., object], *arguments: object) -> float:
    """Seconds of one call."""
    started_s = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started_s
