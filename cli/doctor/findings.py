"""What a check found, in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        level: a problem keeps something from working, a warning will at some time, or costs something now.
        about: what was looked at.
        text: what was found.
        advice: what to do; empty if nothing.
    """

    level: Level
    about: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.level:<8} {self.about}: {self.text}" + (f". {self.advice}" if self.advice else "")
