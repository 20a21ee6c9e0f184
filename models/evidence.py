"""What retrieval found for one request: the input of the prompt builder.

Hundreds of these objects are made per request, and msgspec's Structs cost a fraction of frozen dataclasses.
Embeddings are LightGCN's z, float32 of shape (dim,), or None while an id has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class ItemFacts(msgspec.Struct, frozen=True, gc=False):
    """What is known of one item. An unknown item has no title, no embedding and no counts."""

    item_id: str
    title_tokens: Sequence[int] = ()
    """Its catalogue text, tokenised once when the item arrived; never contains a control token."""
    embedding: Vector | None = None
    impressions: int = 0
    positives: int = 0


class PastItem(msgspec.Struct, frozen=True, gc=False):
    """One of the user's past interactions; `similarity` is the cosine to the candidate (0 in the prefix)."""

    item: ItemFacts
    positive: bool
    similarity: float = 0.0


class SimilarUser(msgspec.Struct, frozen=True, gc=False):
    """A similar user who was shown the candidate, and whether they clicked."""

    user_id: str
    similarity: float
    positive: bool


class SimilarItem(msgspec.Struct, frozen=True, gc=False):
    """An item similar to a candidate that no similar user was shown; its counts stand in for the candidate's."""

    item: ItemFacts
    similarity: float


class AttributeEvidence(msgspec.Struct, frozen=True, gc=False):
    """A value of one of the candidate's attributes (its author, a genre), and how items that share it fare."""

    name: str
    value: str
    impressions: int = 0
    """Of all other items with this value."""
    positives: int = 0
    user_impressions: int = 0
    """The user's own past interactions with items of this value, as far back as their history goes."""
    user_positives: int = 0
    user_surprise: float = 0.0
    """Sum over these of 1 for a click, 0 for none, minus the item's click rate."""


class UserEvidence(msgspec.Struct, frozen=True, gc=False):
    """Evidence about the user, shared by all candidates of the request."""

    user_id: str
    embedding: Vector | None = None
    impressions: int = 0
    positives: int = 0
    recent: Sequence[PastItem] = ()
    """The latest interactions, oldest first."""


class CandidateEvidence(msgspec.Struct, frozen=True, gc=False):
    """Evidence about one candidate."""

    item: ItemFacts
    past: Sequence[PastItem] = ()
    """The user's past items most similar to the candidate, most similar first."""
    similar_users: Sequence[SimilarUser] = ()
    similar_items: Sequence[SimilarItem] = ()
    shared: Vector | None = None
    """(len(SHARED_FEATURES),) how the items that share its attributes' values and its title's words fare."""
    graded: Vector | None = None
    """(len(GRADED_FEATURES),) how good the user's past was for them, and the candidate for others."""
    attributes: Sequence[AttributeEvidence] = ()
    """The values of its attributes one by one, in the order of the catalogue."""


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """All evidence for one request."""

    user: UserEvidence
    candidates: Sequence[CandidateEvidence]


def blinded(evidence: Evidence) -> Evidence:
    """The same evidence as if no user and no item had an embedding; what was retrieved with them stays."""
    told = with_items(evidence, lambda item: replace(item, embedding=None))
    return replace(told, user=replace(told.user, embedding=None))


def with_items(evidence: Evidence, edit: Callable[[ItemFacts], ItemFacts]) -> Evidence:
    """The same evidence with every item edited: candidates, past items, and those that stand in for a candidate."""

    def past(one: PastItem) -> PastItem:
        return replace(one, item=edit(one.item))

    def candidate(one: CandidateEvidence) -> CandidateEvidence:
        return replace(
            one,
            item=edit(one.item),
            past=[past(each) for each in one.past],
            similar_items=[replace(each, item=edit(each.item)) for each in one.similar_items],
        )

    user = replace(evidence.user, recent=[past(one) for one in evidence.user.recent])
    return replace(evidence, user=user, candidates=[candidate(one) for one in evidence.candidates])
