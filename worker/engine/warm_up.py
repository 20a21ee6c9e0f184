"""Measures what stages cost, on made-up prompts: before `ready`, kernels get built and the cost table filled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from models.prompt import Prompt, TokenSequence
from worker.engine.cost import CostTable
from worker.engine.flight import Flight
from worker.engine.records import EngineSettings
from worker.engine.runner import StageRunner
from worker.engine.scheduler import Entry

SMALLEST: Final = 128
PREFIX: Final = 128
SUFFIX: Final = 32
BUILDING_LIMIT_S: Final = 3.0


def measure_stages(runner: StageRunner, settings: EngineSettings, clock: Callable[[], float]) -> CostTable:
    """Run every stage at doubling sizes up to the largest batch, `warm_up_rounds` times, and take medians."""
    runner.build_kernels(settings.max_batch_tokens, BUILDING_LIMIT_S)
    sizes = [SMALLEST]
    while sizes[-1] * 2 <= settings.max_batch_tokens:
        sizes.append(sizes[-1] * 2)
    stages = len(runner.full_layers)
    seconds = np.zeros((settings.warm_up_rounds, stages, len(sizes)))
    for times in seconds:
        for column, size in enumerate(sizes):
            flight = _made_up(size, runner)
            for stage in range(stages):
                started_s = clock()
                logits, _ = runner.run([flight])
                times[stage, column] = clock() - started_s
                flight.arrive(logits)
    return CostTable(sizes, np.maximum(np.median(seconds, axis=0), 1e-9))


def _made_up(tokens: int, runner: StageRunner) -> Flight:
    """A request of about so many tokens, shaped like a usual one."""
    prefix = min(PREFIX, tokens // 2, max(runner.max_positions // 2, 1))
    suffix = min(SUFFIX, max(runner.max_positions - prefix, 1))
    count = max((tokens - prefix) // suffix, 1)
    prompt = Prompt(_words(prefix, runner.soft_width), [_words(suffix, runner.soft_width)] * count)
    return Flight(Entry(-1, np.inf, np.inf, "final_head", 0, 0), prompt, np.arange(count))


def _words(length: int, soft_width: int) -> TokenSequence:
    """A sequence of one word; what it says costs the same as anything else."""
    return TokenSequence(
        token_ids=np.zeros(length, np.int32),
        soft_positions=np.zeros(0, np.int32),
        soft_kinds=np.zeros(0, np.int8),
        soft_values=np.zeros((0, soft_width), np.float32),
    )
