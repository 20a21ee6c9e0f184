"""What to replay: a catalogue, a history, and impression requests cut from the end of an event log.

A request stands for a page: its candidates are the next items that the user really saw, close together in time, so
every candidate has a label. The page's events are sent after the request, never before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from event_data.event_log import EventLog
from schemas.messages import Interaction, Item

SESSION_GAP_MS: Final = 30 * 60 * 1000
"""A longer pause ends a page."""
MAX_CANDIDATES: Final = 20


@dataclass(frozen=True, slots=True)
class Impression:
    """One request to send, and the user's events on its candidates."""

    request_id: str
    user_id: str
    events: Sequence[Interaction]
    """What the user did with the candidates, in order; one event per candidate."""

    @property
    def item_ids(self) -> list[str]:
        """The candidates."""
        return [event.item_id for event in self.events]

    @property
    def labels(self) -> list[bool]:
        """Whether each candidate was clicked."""
        return [bool(event.positive) for event in self.events]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to send, in the order of sending."""

    name: str
    items: Sequence[Item]
    history: Sequence[Interaction]
    impressions: Sequence[Impression]

    def again(self, number: int) -> Plan:
        """The same requests and events under ids of their own, as new traffic.

        Args:
            number: of the repetition; makes the ids.
        """
        return replace(self, history=[], impressions=[_renamed(page, f"-{number}") for page in self.impressions])


def make_plan(log: EventLog, max_impressions: int, max_candidates: int = MAX_CANDIDATES) -> Plan:
    """The log's test part as impressions, everything before it as history.

    Args:
        log: interactions in time order.
        max_impressions: most requests; later pages are left out.
        max_candidates: a longer page becomes several requests.
    """
    test_start = log.split().validation_end
    pages = sorted(_pages(log.interactions[test_start:], max_candidates), key=lambda page: page[0].event_time_ms)
    return Plan(
        name=log.name,
        items=log.items,
        history=log.interactions[:test_start],
        impressions=[
            Impression(request_id=f"{log.name}-{number:06d}", user_id=page[0].user_id, events=page)
            for number, page in enumerate(pages[:max_impressions])
        ],
    )


def _renamed(page: Impression, ending: str) -> Impression:
    events = [msgspec.structs.replace(event, event_id=f"{event.event_id}{ending}") for event in page.events]
    return replace(page, request_id=f"{page.request_id}{ending}", events=events)


def _pages(interactions: Sequence[Interaction], max_candidates: int) -> Iterator[list[Interaction]]:
    """Each user's events, cut where the user paused, where the page is full, and where an item repeats."""
    open_pages: dict[str, list[Interaction]] = {}
    for event in interactions:
        page = open_pages.get(event.user_id)
        if page is not None and _continues(page, event, max_candidates):
            page.append(event)
            continue
        if page is not None:
            yield page
        open_pages[event.user_id] = [event]
    yield from open_pages.values()


def _continues(page: Sequence[Interaction], event: Interaction, max_candidates: int) -> bool:
    return (
        len(page) < max_candidates
        and event.event_time_ms - page[-1].event_time_ms <= SESSION_GAP_MS
        and all(event.item_id != earlier.item_id for earlier in page)
    )
