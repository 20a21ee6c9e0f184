"""The table of `benchmarks.sessions`."""

from __future__ import annotations

from benchmarks.markdown import Figures, table


def sessions_table(figures: Figures) -> str:
    """A row for each page size."""
    head = (
        f"page, {figures['layers']} layers",
        "tokens: prefix + each candidate",
        "first / second page",
        "second ÷ first",
        "unknown ÷ no cache",
        "MB per user",
    )
    return table(head, [_row(size, told) for size, told in figures.items() if size != "layers"])


def _row(size: str, told: Figures) -> tuple[str, ...]:
    return (
        size,
        f"{told['prefix_tokens']:.0f} + {told['suffix_tokens']:.0f}",
        f"{told['first_ms']:.0f} / {told['second_ms']:.0f} ms",
        f"{told['second_by_first']:.2f}",
        f"{told['unknown_by_plain']:.3f}",
        f"{told['megabytes_per_user']:.2f}",
    )
