"""Which dead letters a command is about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from programs.topics import TopicSettings
from runtime.dead_letters import Letter
from runtime.errors import ExitstreamError

_PLACE: Final = re.compile(r"(?P<topic>.+)\[\d+\]@\d+")
_AGE: Final = re.compile(r"(?P<count>\d{1,9})(?P<unit>[smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class BadSelection(ExitstreamError):
    """What the user named cannot be understood, or is not there."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Letters by place, reason and time; without any of them, all.

    Attributes:
        places: where their records were read, or where the letters themselves are, as `topic[partition]@offset`.
        reason: text that their reason holds, in any case.
        since_ms: refused at that time or later, Unix milliseconds.
    """

    places: frozenset[str] = frozenset()
    reason: str | None = None
    since_ms: int | None = None

    def holds(self, letter: Letter) -> bool:
        """Whether a letter is one of them."""
        return (
            (not self.places or not self.places.isdisjoint(names_of(letter)))
            and (self.reason is None or self.reason.casefold() in letter.reason.casefold())
            and (self.since_ms is None or letter.time_ms >= self.since_ms)
        )


def names_of(letter: Letter) -> tuple[str, str]:
    """The two places that a letter can be named by: its record's and its own."""
    return str(letter.origin), letter.place


def inputs_of(topics: TopicSettings, wanted: Sequence[str]) -> tuple[str, ...]:
    """The input topics named, in their usual order; all of them if none is.

    Raises:
        BadSelection: one of the names is no input's.
    """
    for name in wanted:
        if name not in topics.inputs:
            raise BadSelection(f"{name} is no input topic; dead letters are kept for {', '.join(topics.inputs)}")
    return tuple(name for name in topics.inputs if not wanted or name in wanted)


def inputs_of_places(topics: TopicSettings, places: Iterable[str]) -> tuple[str, ...]:
    """The input topics that places lie in, each an input's own or its dead-letter topic's.

    Raises:
        BadSelection: one of them is no place, or in another topic.
    """
    inputs = {name: name for name in topics.inputs} | {topics.dead_letter(name): name for name in topics.inputs}
    found = []
    for place in places:
        match = _PLACE.fullmatch(place)
        if match is None:
            raise BadSelection(f"{place} is no place; write 'topic[partition]@offset', as `dead-letters list` does")
        if match["topic"] not in inputs:
            raise BadSelection(f"{place} lies in no input topic; they are {', '.join(topics.inputs)}")
        found.append(inputs[match["topic"]])
    return inputs_of(topics, found)


def since(when: str | None, now_ms: int) -> int | None:
    """A time told as an age (`90s`, `30m`, `2h`, `7d`) or as a date with or without a time, as Unix milliseconds.

    Args:
        when: the text; None for no time. Without an offset it is UTC.
        now_ms: what ages count from.

    Raises:
        BadSelection: it is neither.
    """
    if when is None:
        return None
    if age := _AGE.fullmatch(when):
        return now_ms - int(age["count"]) * _SECONDS[age["unit"]] * 1_000
    try:
        moment = datetime.fromisoformat(when)
    except ValueError as error:
        raise BadSelection(f"{when} is no time; write an age (30m, 2h, 7d) or 2026-01-31T12:00") from error
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1_000)
