"""Markdown tables and the way figures are written in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]
"""A benchmark's JSON file, or an object in it."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; rows shorter than the head are filled up with empty cells."""
    lines = [head, ["---"] * len(head), *([*row, *[""] * (len(head) - len(row))] for row in rows)]
    return "\n".join("".join(f"| {cell} " if cell else "| " for cell in line) + "|" for line in lines)


def measured(*rows: Sequence[str]) -> str:
    """A table of figures: name, value and, where there is one, the goal."""
    return table(("figure", "measured", "goal"), rows)


def rounded_down(share: float) -> str:
    """A share close to 1 in per cent, rounded down, so that 100 % means all."""
    return f"{math.floor(1e4 * share + 1e-9) / 100:g} %"


def percent(share: float) -> str:
    """A share in per cent, with a decimal below 1 %."""
    return f"{share:.1%}".replace("%", " %") if 0 < share < 0.01 else f"{share:.0%}".replace("%", " %")


def difference(told: Figures) -> str:
    """A difference with its 95 % interval."""
    return f"{told['difference']:+.4f} [{told['low']:+.4f}, {told['high']:+.4f}]"


def listed(numbers: Iterable[float], form: str = ".1f") -> str:
    """Numbers side by side."""
    return " / ".join(format(number, form) for number in numbers)
