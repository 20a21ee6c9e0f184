"""Which rung of the ladder answers a candidate within a budget: what the engine decides, from what each head took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.messages import MadeBy


@dataclass(frozen=True, slots=True)
class ReachedHead:
    """One head's answer and when it was there."""

    layer: int
    ctr: float
    confidence: float
    at_ms: float
    """Milliseconds after the request came."""


@dataclass(frozen=True, slots=True)
class Rung:
    """An answer and how it came about."""

    made_by: MadeBy
    layer: int
    """Decoder layers run; 0 for the graph."""
    ctr: float
    reason: str
    """For people."""


def answer_within(heads: Sequence[ReachedHead], graph_ctr: float, threshold: float, budget_ms: float) -> Rung:
    """The first head that is confident enough; else the deepest one reached within the budget; else the graph.

    Args:
        heads: from the shallowest to the final one.
        graph_ctr: the rate from the graph alone.
        threshold: the exit threshold in force.
        budget_ms: milliseconds that the request may take.
    """
    reached: ReachedHead | None = None
    for head in heads:
        if head.at_ms > budget_ms:
            break
        reached = head
        if head is heads[-1]:
            return Rung("final", head.layer, head.ctr, "no earlier head was confident enough; the final one answered")
        if head.confidence >= threshold:
            why = f"its confidence {head.confidence:.2f} reaches the threshold {threshold:.2f}"
            return Rung("confident", head.layer, head.ctr, f"the head after layer {head.layer} answered: {why}")
    if reached is None:
        return Rung("graph", 0, graph_ctr, f"no head is reached within {budget_ms:g} ms; the graph score answered")
    why = f"the deepest head reached within {budget_ms:g} ms answered, after layer {reached.layer}"
    return Rung("deadline", reached.layer, reached.ctr, why)
