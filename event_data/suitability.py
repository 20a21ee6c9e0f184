"""Whether an event log is enough to train a model on, and if not, why not, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from event_data.event_log import TRAIN_SHARE, VALIDATION_SHARE, EventLog
from runtime.errors import DatasetError

LEAST_EVENTS: Final = 1_000
LEAST_OF_EACH: Final = 20
"""Clicks, and events without a click, in each part: fewer say nothing about a model."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Whether each event is a click, in order of time."""

    positives: NDArray[np.bool_]  # (events,)

    @classmethod
    def of(cls, log: EventLog) -> Self:
        """Those of a log."""
        return cls(np.fromiter((bool(event.positive) for event in log.interactions), np.bool_, len(log.interactions)))

    @classmethod
    def in_time_order(cls, times_ms: NDArray[np.int64], positives: NDArray[np.int8]) -> Self:
        """Those of events in any order."""
        return cls(positives[np.argsort(times_ms, kind="stable")].astype(np.bool_))

    def parts(self) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """The parts to train, to calibrate and to evaluate on."""
        first = round(len(self.positives) * TRAIN_SHARE)
        second = round(len(self.positives) * (TRAIN_SHARE + VALIDATION_SHARE))
        yield "the first 80 % (to train on)", self.positives[:first]
        yield "the next 10 % (to calibrate on)", self.positives[first:second]
        yield "the last 10 % (to evaluate on)", self.positives[second:]


def unsuitable(outcomes: Outcomes) -> Sequence[str]:
    """What keeps a model from being trained; nothing if it can be."""
    events, clicks = len(outcomes.positives), int(outcomes.positives.sum())
    if events < LEAST_EVENTS:
        return [f"{events:,} interactions are too few; at least {LEAST_EVENTS:,} are needed"]
    if clicks in (0, events):
        what = "every interaction is" if clicks else "no interaction is"
        advice = (
            "add what was shown but not clicked, or name the column that says so (`positive`, `rating` with "
            "`positive_at`, or `kind`) in dataset.toml"
        )
        return [f"{what} a click, so there is nothing to tell apart; {advice}"]
    return [
        f"{name}: {clicks:,} clicks and {len(part) - clicks:,} events without; {LEAST_OF_EACH} of each are needed"
        for name, part in outcomes.parts()
        if min(clicks := int(part.sum()), len(part) - clicks) < LEAST_OF_EACH
    ]


def require_suitable(log: EventLog) -> None:
    """Refuses a log that no model can be trained on.

    Raises:
        DatasetError: says why.
    """
    problems = unsuitable(Outcomes.of(log))
    if problems:
        raise DatasetError(f"{log.name} cannot be trained on: {'; '.join(problems)}")
