"""Requests of the log's last tenth, as a worker would have received them: 20 candidates, prompts as of their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from event_data.event_log import EventLog
from models.bundle import Bundle
from models.prompt import Prompt
from schemas.messages import Interaction
from training.clicks import is_click
from training.replay import Replay

CANDIDATES: Final = 20


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and the outcome of each candidate."""

    prompt: Prompt
    labels: NDArray[np.float64]  # (candidates,) 1 for a click, 0 for none, NaN where it was never shown


@dataclass(frozen=True, slots=True)
class _Slate:
    """The items that one user saw from some event on."""

    first: int
    user_id: str
    events: list[Interaction]


def requests_of(bundle: Bundle, log: EventLog, most: int) -> list[Request]:
    """The first requests of the test part, in time order.

    A request's candidates are the next items that its user saw. If these are fewer than 20, random items of the
    catalogue with unknown outcome are added.
    """
    first = log.split().validation_end
    replay = Replay.for_bundle(log.items, bundle)
    replay.advance(log.interactions[:first])
    random = np.random.default_rng(0)
    requests: list[Request] = []
    applied = first
    for slate in _slates(log.interactions, first)[:most]:
        replay.advance(log.interactions[applied : slate.first])
        applied = slate.first
        others = random.choice(len(log.items), CANDIDATES, replace=False)
        items = [event.item_id for event in slate.events]
        labels = [float(is_click(event)) for event in slate.events]
        fill = [log.items[other].item_id for other in others if log.items[other].item_id not in items]
        fill = fill[: CANDIDATES - len(items)]
        prompt = replay.prompt(slate.user_id, items + fill)
        requests.append(Request(prompt, np.array(labels + [np.nan] * len(fill))))
    return requests


def _slates(interactions: Sequence[Interaction], first: int) -> list[_Slate]:
    """Every user's events of the test part, up to 20 different items at a time, by the time of their first."""
    open_slates: dict[str, _Slate] = {}
    slates: list[_Slate] = []
    for index in range(first, len(interactions)):
        event = interactions[index]
        slate = open_slates.get(event.user_id)
        if slate is None or len(slate.events) == CANDIDATES or any(event.item_id == e.item_id for e in slate.events):
            slate = _Slate(index, event.user_id, [])
            open_slates[event.user_id] = slate
            slates.append(slate)
        slate.events.append(event)
    return slates
