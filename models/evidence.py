"""What retrieval found for one request: plain data that the prompt builder and the graph score read.

They are Structs, for hundreds are made per request: those of msgspec cost a fraction of a frozen dataclass.

Embeddings are the graph's z vectors, float32 of shape (dim,), or None while an id has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class ItemFacts(msgspec.Struct, frozen=True, gc=False):
    """What is known of one item. An item nobody has told of has an empty title, no embedding and no counts."""

    item_id: str
    title_tokens: Sequence[int] = ()
    """Its catalogue text, tokenised once when the item became known; never holds a control token."""
    embedding: Vector | None = None
    impressions: int = 0
    positives: int = 0


class PastItem(msgspec.Struct, frozen=True, gc=False):
    """One of the user's own past interactions; `similarity` is the cosine to the candidate (0 in the prefix)."""

    item: ItemFacts
    positive: bool
    similarity: float = 0.0


class SimilarUser(msgspec.Struct, frozen=True, gc=False):
    """A user near this one who has met the candidate, and what came of it."""

    user_id: str
    similarity: float
    positive: bool


class SimilarItem(msgspec.Struct, frozen=True, gc=False):
    """An item near a candidate that nobody near this user has met; its counts say how it fared."""

    item: ItemFacts
    similarity: float


class UserEvidence(msgspec.Struct, frozen=True, gc=False):
    """The user's part, shared by all candidates of the request."""

    user_id: str
    embedding: Vector | None = None
    impressions: int = 0
    positives: int = 0
    recent: Sequence[PastItem] = ()
    """The last interactions, oldest first."""


class CandidateEvidence(msgspec.Struct, frozen=True, gc=False):
    """One candidate's part."""

    item: ItemFacts
    past: Sequence[PastItem] = ()
    """The user's own past items nearest to the candidate, nearest first."""
    similar_users: Sequence[SimilarUser] = ()
    similar_items: Sequence[SimilarItem] = ()


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """Everything the model is told about one request."""

    user: UserEvidence
    candidates: Sequence[CandidateEvidence]
