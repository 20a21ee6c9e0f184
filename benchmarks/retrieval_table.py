"""The table of `benchmarks.retrieval`."""

from __future__ import annotations

from benchmarks.markdown import Figures, table


def retrieval(figures: Figures) -> str:
    """Searches by number of users, beside what they were."""
    shown = (
        ("p50, ms", "retrieval_ms_p50", ".3f"),
        ("p99, ms", "retrieval_ms_p99", ".3f"),
        (f"recall@{figures['neighbours']}", "recall", ".3f"),
        ("200 changed users written, ms", "update_ms", ".2f"),
        ("index, bytes a user", "index_bytes_per_user", ".0f"),
        ("training, s", "training_s", ".1f"),
        ("before: p50, ms", "retrieval_ms_p50_before", ".3f"),
        ("before: p99, ms", "retrieval_ms_p99_before", ".3f"),
        ("exact search, ms", "retrieval_ms_untrained_before", ".2f"),
    )
    return table(
        ("users", *(f"{users:,}" for users in figures["users"])),
        [(name, *(format(value, form) for value in figures[key])) for name, key, form in shown],
    )
