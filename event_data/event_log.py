"""The event log: a catalogue and interactions in time order, and its split into train, validation and test part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.messages import Interaction, Item

TRAIN_SHARE = 0.8
VALIDATION_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class EventLog:
    """A data set as the catalogue and the interactions that the product would receive."""

    name: str
    items: Sequence[Item]
    interactions: Sequence[Interaction]
    """In order of event time; events of the same time keep the order of the data set."""
    skipped: int = 0
    """Number of lines that could not be read."""
    first_skipped: str = ""
    """Place and error of the first of them."""
    click_probabilities: Sequence[float] = ()
    """(interactions,) of a synthetic log, what each click was drawn with. Only evaluation reads them: their AUC is the
    limit that no model can pass by more than chance."""

    def split(self) -> TimeSplit:
        """By time: the first 80 % to train on, the next 10 % to calibrate on, the last 10 % to test on."""
        first = round(len(self.interactions) * TRAIN_SHARE)
        second = round(len(self.interactions) * (TRAIN_SHARE + VALIDATION_SHARE))
        return TimeSplit(train_end=first, validation_end=second, end=len(self.interactions))


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Indices into `EventLog.interactions` where each part ends."""

    train_end: int
    validation_end: int
    end: int
