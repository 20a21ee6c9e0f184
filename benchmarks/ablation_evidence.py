"""What can be left out of the evidence, and where else it can come from: the log is replayed once, and the prompts of
every variant are made from what was found then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.nearest_past import NearestPast, text_similarities
from event_data.event_log import EventLog
from graph_updater.graph.base_embeddings import bundled_base
from models.evidence import Evidence, PastItem, blinded
from models.graph_base import GraphBase
from models.prompt import PromptLimits
from models.text import Text
from training.examples import Spans, halves, tick_lengths, without_embeddings
from training.presets import Preset
from training.progress import Advance, Reporter
from training.replay import PastRequest, Replay, replay_requests


@dataclass(frozen=True, slots=True)
class Choice:
    """Which evidence a variant has. Click rates and counts of user and candidate are in all of them."""

    words: str
    """What a table calls it."""
    past: Literal["none", "latest", "text", "graph"] = "none"
    """Which of the user's past items stand beside a candidate; with any, the latest ones are in the prefix too."""
    users: bool = False
    """What the nearest users did with the candidate; if none met it and the preset asks for similar items, how these
    fare."""
    embeddings: bool = True
    """The graph's embeddings of user and items, as soft tokens and as affinity."""
    shared: bool = False
    """How items that share its attributes and words fare, overall and with this user."""


CHOICES: Final = {
    "nothing": Choice("neither retrieval nor graph", embeddings=False),
    "latest": Choice("last K", past="latest", embeddings=False),
    "text": Choice("text similarity", past="text", embeddings=False),
    "embeddings": Choice("no retrieval, graph embeddings"),
    "text_embeddings": Choice("text similarity, graph embeddings", past="text"),
    "graph_history": Choice("GCN history", past="graph"),
    "graph_users": Choice("GCN similar users", users=True),
    "graph_both": Choice("GCN history and similar users", past="graph", users=True),
    "shipped": Choice("these and what items share (as shipped)", past="graph", users=True, shared=True),
}


class Recorded(NamedTuple):
    """One past request, its outcome, and all evidence of its time."""

    request: PastRequest
    evidence: Evidence
    by_text: Sequence[Sequence[PastItem]]
    """For each candidate the user's past items nearest to it in words."""


@dataclass(frozen=True, slots=True)
class Records:
    """The parts of a log, as `training.examples` has them, and the last tenth."""

    train: list[Recorded]
    to_fit: list[Recorded]
    to_test: list[Recorded]
    last_tenth: list[Recorded]


def record(
    log: EventLog, graph: GraphBase, text: Text, preset: Preset, most_tested: int, reporter: Reporter
) -> Records:
    """All evidence of every request, found once, as `training.examples` finds it: without embeddings in the slice that
    these are fitted to.
    """
    split, count = log.split(), len(log.interactions)
    first, start, held_out_from = Spans.of(log, preset)
    tested_from = max(split.validation_end, count - most_tested)
    blind, seeing = (
        _Finder(log, Replay(log.items, base, text, preset.limits), preset.limits)
        for base in (without_embeddings(graph), bundled_base(graph, text))
    )
    ticks, at_once = tick_lengths(preset), repeat(1)
    total = split.train_end - first + split.validation_end - held_out_from + count - tested_from
    with reporter.step("evidence by replay", total) as advance:
        train = [*blind.found(first, start, ticks, advance), *seeing.found(start, split.train_end, ticks, advance)]
        held_out = list(seeing.found(held_out_from, split.validation_end, at_once, advance))
        last_tenth = list(seeing.found(tested_from, count, at_once, advance))
    return Records(train, *halves(held_out, preset.seed), last_tenth)


class _Finder:
    """Finds the evidence of requests in the order of the log.

    Args:
        log: the events.
        replay: of them, not begun.
        limits: how much is found.
    """

    def __init__(self, log: EventLog, replay: Replay, limits: PromptLimits) -> None:
        self._events, self._replay, self._limits = log.interactions, replay, limits
        self._by_text = NearestPast(replay.tables, text_similarities(replay.tables, log.items))
        self._done = 0

    def found(self, start: int, end: int, ticks: Iterator[int], advance: Advance) -> Iterator[Recorded]:
        """Of the events from one index to another, behind all that was found before."""
        self._replay.advance(self._events[self._done : start])
        self._done = end
        for request in replay_requests(self._replay, self._events[start:end], ticks, start):
            evidence = self._replay.evidence(request.user_id, request.item_ids)
            near = self._by_text.of(request.user_id, request.item_ids, self._limits.past_items)
            yield Recorded(request, evidence, near)
            advance(len(request.labels))


def chosen(recorded: Recorded, choice: Choice, limits: PromptLimits) -> Evidence:
    """The evidence that a variant has."""
    found = recorded.evidence
    recent = found.user.recent if choice.past != "none" or choice.users else ()
    evidence = Evidence(
        user=msgspec.structs.replace(found.user, recent=recent),
        candidates=[
            msgspec.structs.replace(
                candidate,
                past=past,
                similar_users=candidate.similar_users if choice.users else (),
                similar_items=candidate.similar_items if choice.users else (),
                shared=candidate.shared if choice.shared else None,
                graded=candidate.graded if choice.shared else None,
                attributes=candidate.attributes if choice.shared else (),
            )
            for candidate, past in zip(found.candidates, _past(recorded, choice, limits), strict=True)
        ],
    )
    return evidence if choice.embeddings else blinded(evidence)


def _past(recorded: Recorded, choice: Choice, limits: PromptLimits) -> Sequence[Sequence[PastItem]]:
    """For each candidate."""
    found = recorded.evidence
    if choice.past == "graph":
        return [candidate.past for candidate in found.candidates]
    if choice.past == "text":
        return recorded.by_text
    if choice.past == "none":
        return [()] * len(found.candidates)
    # The latest first, all of the same weight.
    latest = [msgspec.structs.replace(past, similarity=1.0) for past in reversed(found.user.recent)]
    return [latest[: limits.past_items]] * len(found.candidates)


def request_events(records: Sequence[Recorded]) -> NDArray[np.int64]:
    """Indices (candidates,) into the log."""
    return np.concatenate([one.request.events for one in records])
