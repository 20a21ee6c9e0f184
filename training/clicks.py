"""What a click is."""

from __future__ import annotations

from graph_updater.graph.config import DEFAULT_POSITIVE_KINDS
from schemas.messages import Interaction


def is_click(interaction: Interaction) -> bool:
    """Whether an interaction counts as a click: what it says itself, else what the updater takes its kind for."""
    return interaction.kind in DEFAULT_POSITIVE_KINDS if interaction.positive is None else interaction.positive
