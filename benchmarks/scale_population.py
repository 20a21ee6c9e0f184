"""Users and items of any number, with the states that an updater would publish of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.retrieval import user_vectors
from schemas.messages import Embedding, ItemState, PastInteraction, UserState
from schemas.packed_states import pack_state

MOST_PAST: Final = 50
EXPONENT: Final = 1.5
"""Of the power law of users' activity: four in ten have one interaction in the history, one in ten has fifty."""
NOW_MS: Final = 1_700_000_000_000
_AT_ONCE: Final = 50_000


@dataclass
class Population:
    """Users whose histories have lengths by a power law, up to `MOST_PAST`, and items met by Zipf's law.

    Attributes:
        users: how many.
        items: how many.
        dim: of embeddings, at most 64.
        space: of embeddings.
        full: whether every history has `MOST_PAST` interactions instead.
    """

    users: int
    items: int
    dim: int = 64
    space: str = ""
    full: bool = False
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def user_states(self, first: int = 0, last: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Keys and packed states."""
        last = self.users if last is None else last
        for start in range(first, last, _AT_ONCE):
            count = min(_AT_ONCE, last - start)
            vectors = user_vectors(count, seed=start)[:, : self.dim].astype(np.float16)
            lengths = self.history_lengths(count)
            met = self.met_items(int(lengths.sum()))
            ends = np.cumsum(lengths)
            for user in range(count):
                items = met[ends[user] - lengths[user] : ends[user]].tolist()
                name = f"user-{start + user:010d}"
                yield name.encode(), pack_state(self._user_state(name, vectors[user], items))

    def item_states(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and packed states."""
        vectors = user_vectors(self.items, seed=-1 % 2**32)[:, : self.dim].astype(np.float16)
        for item in range(self.items):
            state = ItemState(
                item_id=f"item-{item:08d}",
                embedding=self._embedding(vectors[item]),
                impressions=5,
                positives=1,
                last_event_time_ms=NOW_MS,
                published_time_ms=NOW_MS,
            )
            yield state.item_id.encode(), pack_state(state)

    def history_lengths(self, count: int) -> NDArray[np.int64]:
        """(count,) drawn anew."""
        if self.full:
            return np.full(count, MOST_PAST)
        return np.minimum(self._random.zipf(EXPONENT, count), MOST_PAST)

    def met_items(self, count: int) -> NDArray[np.int64]:
        """(count,) drawn anew: by Zipf's law, as its inverse cumulative distribution has it for many items."""
        return (self.items ** self._random.random(count)).astype(np.int64) - 1

    def _user_state(self, name: str, vector: NDArray[np.float16], items: list[int]) -> UserState:
        past = [
            PastInteraction(
                item_id=f"item-{item:08d}",
                event_time_ms=NOW_MS + at,
                positive=at % 5 == 0,
                event_id=f"{name[5:]}-{at:08d}-0000-0000-0000",
            )
            for at, item in enumerate(items)
        ]
        return UserState(
            user_id=name,
            embedding=self._embedding(vector),
            recent=past,
            impressions=len(past),
            positives=-(-len(past) // 5),
            last_event_time_ms=NOW_MS + len(past),
            published_time_ms=NOW_MS,
        )

    def _embedding(self, vector: NDArray[np.float16]) -> Embedding:
        return Embedding(data=vector.tobytes(), dtype="float16", dim=self.dim, version=1, space=self.space)
