"""What the engine can be told: the model's constants, the bounds on memory, and when a change is worth publishing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.messages import EmbeddingDtype, InteractionKind

DEFAULT_POSITIVE_KINDS: Final[frozenset[InteractionKind]] = frozenset({"click", "purchase", "like"})


class InvalidGraphConfig(ValueError):
    """A setting of the graph that cannot work; the text says which and what it may be."""


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """Settings of the engine; the model bundle fixes `dim` and the layer weights.

    Attributes:
        epsilon: how far, relative to the embeddings it enters, a change may wait before it is passed on; 0 is exact.
        degree_cap: edges kept per node, the newest stay; 0 for no cap.
        window_ms: age at which an edge leaves the graph; 0 for never.
        half_life_ms: age at which an edge counts half; 0 for no decay.
        history_length: interactions kept per user.
        publish_min_cosine: an embedding is published again once its cosine to the published one is below this.
        embedding_dtype: number format of published embeddings.
        positive_kinds: interactions that make an edge where their own `positive` does not say.
    """

    epsilon: float = 0.08
    degree_cap: int = 4096
    window_ms: int = 0
    half_life_ms: int = 0
    history_length: int = 50
    publish_min_cosine: float = 0.999
    embedding_dtype: EmbeddingDtype = "float16"
    positive_kinds: frozenset[InteractionKind] = DEFAULT_POSITIVE_KINDS

    def __post_init__(self) -> None:
        for name in ("degree_cap", "window_ms", "half_life_ms"):
            if getattr(self, name) < 0:
                raise InvalidGraphConfig(f"{name} is {getattr(self, name)}; it must be 0 (off) or more")
        if not 0.0 <= self.epsilon < 1.0:
            raise InvalidGraphConfig(f"epsilon is {self.epsilon}; it must be at least 0 (exact) and below 1")
        if not 1 <= self.history_length <= 10_000:
            raise InvalidGraphConfig(f"history_length is {self.history_length}; it must be from 1 to 10,000")
        if not 0.0 <= self.publish_min_cosine <= 1.0:
            raise InvalidGraphConfig(f"publish_min_cosine is {self.publish_min_cosine}; it must be from 0 to 1")
