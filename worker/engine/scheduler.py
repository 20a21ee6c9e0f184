"""Which prepared parts run together next, which must leave now, and which candidates leave at a head.

Earliest deadline first. The most urgent part says which stage runs; others at the same depth join it in their order,
while tokens and every member's deadline allow. Decides with plain numbers; executes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.messages import QualityFloor
from worker.engine.part import Part

StageCost = Callable[[int, int], float]
"""Predicted seconds of (stage, tokens)."""

REQUIRED_DEPTH: Final[dict[QualityFloor, float]] = {"graph": 0, "first_head": 1, "final_head": float("inf")}
"""Heads that a request must pass before a deadline may end it."""


def next_batch(parts: Iterable[Part], now_s: float, max_tokens: int, cost: StageCost) -> list[Part]:
    """The parts to run through their next stage together; empty only if there are none.

    A batch grows while it stays within `max_tokens` and its predicted end within every member's deadline. One part
    always runs, however large or late it is.
    """
    by_urgency = sorted(parts, key=lambda part: part.urgency)
    if not by_urgency:
        return []
    batch = by_urgency[:1]
    stage, tokens, deadline_s = batch[0].depth, batch[0].tokens, batch[0].job.deadline_s
    for part in by_urgency[1:]:
        together = tokens + part.tokens
        if part.depth != stage or together > max_tokens:
            continue
        earliest_s = min(deadline_s, part.job.deadline_s)
        if now_s + cost(stage, together) > earliest_s and not _all_late([*batch, part], now_s, cost):
            continue
        batch.append(part)
        tokens, deadline_s = together, earliest_s
    return batch


def out_of_time(parts: Iterable[Part], now_s: float, cost: StageCost) -> list[Part]:
    """The parts whose next stage would end after their deadline and whose quality floor lets them leave."""
    return [
        part
        for part in parts
        if part.depth >= REQUIRED_DEPTH[part.job.quality_floor]
        and now_s + cost(part.depth, part.tokens) > part.job.deadline_s
    ]


def leaving(
    confidence: NDArray[np.float64], threshold: float, *, is_final: bool, floor: QualityFloor
) -> NDArray[np.bool_]:
    """Which candidates leave at this head.

    Args:
        confidence: (n,) of the candidates that have reached it.
        threshold: the exit threshold in force; a confidence equal to it suffices.
        is_final: whether no head follows.
        floor: the requester's quality floor; `final_head` forbids early answers.

    Returns:
        (n,).
    """
    if is_final:
        return np.ones(len(confidence), np.bool_)
    if floor == "final_head":
        return np.zeros(len(confidence), np.bool_)
    return confidence >= threshold


def _all_late(parts: Iterable[Part], now_s: float, cost: StageCost) -> bool:
    """Whether all of them miss their deadlines even alone: then only throughput counts."""
    return all(now_s + cost(part.depth, part.tokens) > part.job.deadline_s for part in parts)
