"""What the worker's tests share: a small tokenizer and states by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from models.text import Text
from schemas.embeddings import encode_embedding
from schemas.messages import ItemState, PastInteraction, UserState
from worker.tables import TableLimits, Tables

DIM = 4


@pytest.fixture(scope="session")
def text() -> Text:
    """A byte-level tokenizer that has seen a few titles."""
    return Text.train(["red shoes", "blue shoes", "User history: Similar: Others: Candidate: Click? yes no"], 400)


@pytest.fixture
def tables(text) -> Tables:
    """Empty tables for embeddings of four numbers."""
    return Tables(text, DIM, TableLimits(history_length=6, title_tokens=8))


@pytest.fixture(scope="session")
def user_state() -> Callable[..., UserState]:
    """Makes user states: `user_state("u", [1, 0, 0, 0], ["+a", "-b"])` clicked a, then saw b without a click."""

    def make(user_id: str, vector: Sequence[float] | None, past: Sequence[str] = (), **more) -> UserState:
        recent = [
            PastInteraction(item_id=entry[1:], event_time_ms=at, positive=entry[0] == "+", event_id=f"{user_id}-{at}")
            for at, entry in enumerate(past)
        ]
        embedding = None if vector is None else encode_embedding(np.array(vector, np.float32), "float32", 1)
        counts = {"impressions": len(recent), "positives": sum(entry.positive for entry in recent)}
        times = {"last_event_time_ms": len(recent), "published_time_ms": len(recent)}
        return UserState(**({"user_id": user_id, "embedding": embedding, "recent": recent} | counts | times | more))

    return make


@pytest.fixture(scope="session")
def item_state() -> Callable[..., ItemState]:
    """Makes item states: `item_state("a", [1, 0, 0, 0], 10, 3)` was shown ten times and clicked three times."""

    def make(item_id: str, vector: Sequence[float] | None, impressions: int = 1, positives: int = 0) -> ItemState:
        embedding = None if vector is None else encode_embedding(np.array(vector, np.float32), "float32", 1)
        return ItemState(
            item_id=item_id,
            embedding=embedding,
            impressions=impressions,
            positives=positives,
            last_event_time_ms=1,
            published_time_ms=1,
        )

    return make
