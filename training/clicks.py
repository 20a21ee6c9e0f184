"""Which interactions are clicks."""

from __future__ import annotations

from graph_updater.graph.config import DEFAULT_POSITIVE_KINDS
from schemas.messages import Interaction


def is_click(interaction: Interaction) -> bool:
    """Whether an interaction is a click: by its `positive`, else by its kind as the updater does by default."""
    return interaction.kind in DEFAULT_POSITIVE_KINDS if interaction.positive is None else interaction.positive
