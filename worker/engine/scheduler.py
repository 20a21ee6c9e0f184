"""Which requests run together next, and which must leave now. Decides with plain numbers; executes nothing.

Earliest deadline first. The most urgent request says which stage runs; others at the same depth join it in their order,
while tokens and every member's deadline allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from schemas.messages import QualityFloor

StageCost = Callable[[int, int], float]
"""Predicted seconds of (stage, tokens)."""

REQUIRED_DEPTH: dict[QualityFloor, float] = {"graph": 0, "first_head": 1, "final_head": float("inf")}
"""Heads that a request must pass before a deadline may end it."""


@dataclass(slots=True)
class Entry:
    """One request, or one part of a large one, in numbers.

    `order_s` is what the queue is sorted by: the deadline, but never before the request came nor later than its
    patience allows. So whoever comes after `order_s` cannot overtake it any more, and none starves.
    """

    ticket: int  # unique, in order of arrival
    deadline_s: float
    order_s: float
    floor: QualityFloor
    prefix_tokens: int
    suffix_tokens: int
    depth: int = field(default=0)

    @property
    def tokens(self) -> int:
        """Rows in the next stage."""
        return self.prefix_tokens + self.suffix_tokens

    @property
    def urgency(self) -> tuple[float, int]:
        """Sort key: smaller runs first."""
        return self.order_s, self.ticket


def order_of(deadline_s: float, submitted_s: float, patience_s: float) -> float:
    """Place in the queue, see `Entry`."""
    return min(max(deadline_s, submitted_s), submitted_s + patience_s)


def out_of_time(entries: Iterable[Entry], now_s: float, cost: StageCost) -> list[Entry]:
    """The entries whose next stage would end after their deadline and whose quality floor lets them leave."""
    return [
        entry
        for entry in entries
        if entry.depth >= REQUIRED_DEPTH[entry.floor] and now_s + cost(entry.depth, entry.tokens) > entry.deadline_s
    ]


def next_batch(entries: Iterable[Entry], now_s: float, max_tokens: int, cost: StageCost) -> list[Entry]:
    """The entries to run through their next stage together; empty only if there are none.

    A batch grows while it stays within `max_tokens` and its predicted end within every member's deadline. One request
    always runs, however large or late it is.
    """
    waiting = sorted(entries, key=lambda entry: entry.urgency)
    if not waiting:
        return []
    batch = waiting[:1]
    stage, tokens, deadline_s = batch[0].depth, batch[0].tokens, batch[0].deadline_s
    for entry in waiting[1:]:
        together = tokens + entry.tokens
        if entry.depth != stage or together > max_tokens:
            continue
        ends_s = now_s + cost(stage, together)
        if ends_s > min(deadline_s, entry.deadline_s) and not _late_anyway(batch, entry, now_s, cost):
            continue
        batch.append(entry)
        tokens, deadline_s = together, min(deadline_s, entry.deadline_s)
    return batch


def _late_anyway(batch: list[Entry], entry: Entry, now_s: float, cost: StageCost) -> bool:
    """Whether all of them miss their deadlines even alone: then only throughput counts."""
    return all(now_s + cost(member.depth, member.tokens) > member.deadline_s for member in (*batch, entry))
