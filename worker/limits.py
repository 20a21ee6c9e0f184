"""How much the tables keep and how they are searched. Apart from them, so that settings need not import FAISS."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """When to change from exact search to inverted lists, and how good those must stay."""

    exact_limit: int = 20_000
    """Most entries that are searched exactly."""
    least_recall: float = 0.95
    watch_every: int = 1_000
    """Every so many searches one query is answered exhaustively as well, to measure recall."""
    retrain_growth: float = 1.5
    """The lists are trained anew when the index has so many times the entries they were trained for, or after as many
    changes."""


@dataclass(frozen=True, slots=True)
class TableLimits:
    """What is kept per entry, and how it is searched."""

    history_length: int = 64
    """Past interactions kept per user, the latest ones."""
    title_tokens: int = 32
    index: IndexSettings = field(default_factory=IndexSettings)
