"""How long it takes to find evidence, by where it comes from: the same requests on the same tables, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import islice
from random import Random
from typing import Final

from benchmarks.nearest_past import (
    NearestPast,
    embedding_similarities,
    read_text_similarities,
    text_similarities,
)
from event_data.event_log import EventLog
from models.prompt import PromptLimits
from training.replay import Replay

CANDIDATES: Final = 20
"""Of a request."""
SOURCES: Final = {
    "graph_history": "GCN history: past items nearest by embedding",
    "text": "text similarity, vectors of all texts kept",
    "text_read": "text similarity, texts read at the request",
    "everything": "all that a worker retrieves: history, users, items, what is shared",
}
Find = Callable[[str, Sequence[str]], object]


def retrieval_times(
    log: EventLog, replay: Replay, limits: PromptLimits, requests: int, rounds: int, seed: int = 0
) -> dict[str, float]:
    """Microseconds per request, by source: the median over rounds, each of which times every source.

    Args:
        log: whose latest users are asked for, with random items.
        replay: with the log applied.
        limits: how much is looked for.
        requests: in a round.
        rounds: after one that warms up.
        seed: of the items.
    """
    asked = _requests(log, requests, Random(seed))
    timed: dict[str, list[float]] = {name: [] for name in SOURCES}
    finders = _finders(log, replay, limits)
    for _ in range(rounds + 1):
        for name, find in finders.items():
            started_s = time.perf_counter()
            for user_id, item_ids in asked:
                find(user_id, item_ids)
            timed[name].append(1e6 * (time.perf_counter() - started_s) / len(asked))
    return {name: statistics.median(times[1:]) for name, times in timed.items()}


def _finders(log: EventLog, replay: Replay, limits: PromptLimits) -> dict[str, Find]:
    tables, count = replay.tables, limits.past_items

    def nearest(past: NearestPast) -> Find:
        return lambda user_id, item_ids: past.of(user_id, item_ids, count)

    return {
        "graph_history": nearest(NearestPast(tables, embedding_similarities(tables))),
        "text": nearest(NearestPast(tables, text_similarities(tables, log.items))),
        "text_read": nearest(NearestPast(tables, read_text_similarities(tables, log.items))),
        "everything": replay.evidence,
    }


def _requests(log: EventLog, count: int, random: Random) -> list[tuple[str, list[str]]]:
    users = islice(dict.fromkeys(event.user_id for event in reversed(log.interactions)), count)
    item_ids = [item.item_id for item in log.items]
    return [(user_id, random.sample(item_ids, min(CANDIDATES, len(item_ids)))) for user_id in users]
