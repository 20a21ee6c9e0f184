"""What every reader ends in: a catalogue and interactions in time order, and the split in time behind all figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.messages import Interaction, Item

TRAIN_SHARE = 0.8
VALIDATION_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class EventLog:
    """A data set as the product meets it."""

    name: str
    items: Sequence[Item]
    interactions: Sequence[Interaction]
    """In the order of their event times; of equal times the data set's own order is kept."""
    skipped: int = 0
    """Lines that could not be read."""
    first_skipped: str = ""
    """What was wrong with the first of them, and where."""

    def split(self) -> TimeSplit:
        """The first 80 % to train on, the next 10 % to calibrate on, the last 10 % to test on."""
        first = round(len(self.interactions) * TRAIN_SHARE)
        second = round(len(self.interactions) * (TRAIN_SHARE + VALIDATION_SHARE))
        return TimeSplit(train_end=first, validation_end=second, end=len(self.interactions))


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Indices into `EventLog.interactions` where each part ends."""

    train_end: int
    validation_end: int
    end: int
