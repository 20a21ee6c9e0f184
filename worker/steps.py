"""Work that is done a step at a time, so that the compute thread can serve requests between two steps."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TypeVar

from runtime.clock import Clock
from worker.compute import ComputeThread

Step = TypeVar("Step")
Result = TypeVar("Result")


def to_its_end(steps: Generator[Step, None, Result]) -> Result:
    """All steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


async def between_rounds(
    thread: ComputeThread, steps: Generator[Step, None, Result], clock: Clock
) -> tuple[Result, list[tuple[Step, float]]]:
    """Each step in the compute thread, with at least one round of serving between two of them.

    Returns:
        The result, and the seconds that each step took.
    """
    spent: list[tuple[Step, float]] = []
    while True:
        result, step = await thread.call(partial(_advance, steps, clock))
        if step is None:
            return result, spent
        spent.append(step)


def _advance(steps: Generator[Step, None, Result], clock: Clock) -> tuple[Result, tuple[Step, float] | None]:
    """One step with its seconds, or the result."""
    started_s = clock.monotonic()
    try:
        step = next(steps)
    except StopIteration as end:
        return end.value, None
    return None, (step, clock.monotonic() - started_s)  # type: ignore[return-value] # no result yet
