"""The graph's settings, `[updater.graph]`: accuracy, bounds on memory, and when a change is worth publishing."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from runtime.settings import SettingsSection
from schemas.messages import LATEST_MS, EmbeddingDtype, InteractionKind

DEFAULT_POSITIVE_KINDS: Final[frozenset[InteractionKind]] = frozenset({"click", "purchase", "like"})


class GraphConfig(SettingsSection):
    """The graph and its embeddings; the bundle fixes dimension, layer weights and length of histories."""

    epsilon: float = Field(0.08, ge=0, lt=1, description="relative error allowed before a change is pushed; 0 is exact")
    degree_cap: int = Field(4096, ge=0, description="edges kept per node, newest stay; 0: all")
    window_ms: int = Field(0, ge=0, le=LATEST_MS, description="age at which an edge leaves; 0: never")
    half_life_ms: int = Field(0, ge=0, le=LATEST_MS, description="age at which an edge counts half; 0: never")
    user_idle_ms: int = Field(
        90 * 86_400_000,
        ge=0,
        le=LATEST_MS,
        description="a user without an interaction for so long, in event time, is forgotten (90 days); 0: never",
    )
    publish_min_cosine: float = Field(
        0.999, ge=0, le=1, description="publish again once the cosine to the published embedding is below"
    )
    embedding_dtype: EmbeddingDtype = Field("float16", description="number format of published embeddings")
    positive_kinds: frozenset[InteractionKind] = Field(
        DEFAULT_POSITIVE_KINDS, description="interactions that make an edge unless their own `positive` says otherwise"
    )
