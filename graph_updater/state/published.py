"""What is worth publishing, and the user and item states to publish."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from graph_updater.graph.config import GraphConfig
from graph_updater.state.identities import ITEM, USER
from graph_updater.state.nodes import Nodes
from graph_updater.state.packed_writer import packed_records
from schemas.messages import FULL_GRADE, Embedding, ItemState, PastInteraction, UserState

_TOUCHED_BATCHES: Final = 256
"""Micro-batches whose nodes are kept one by one before they are merged, so that a long backlog takes no more memory."""
_TOLD: Final = 5
_MOST: Final = 2**63 - 1
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Changes:
    """Ids whose state is worth publishing, and ids that have expired."""

    users: list[str]
    items: list[str]
    expired_users: list[str]
    expired_items: list[str]


class PublishedStates:
    """Tracks changes since the last publication and builds the states to publish.

    Args:
        config: settings of the graph.
        nodes: the tables; their published embeddings are written here only.
        space: identity of the base embeddings, told with every embedding.

    Attributes:
        space: as given.
        expired_users: users that have left and still need a tombstone.
        expired_items: the same for items.
        not_finite: embeddings that were kept from being published because they were not finite.
    """

    def __init__(
        self,
        config: GraphConfig,
        nodes: Nodes,
        space: str = "",
        *,
        expired_users: Iterable[str] = (),
        expired_items: Iterable[str] = (),
    ) -> None:
        self._config = config
        self._nodes = nodes
        self.space = space
        self._touched = [np.flatnonzero(nodes.facts.changed).astype(np.int32)]
        self.expired_users = list(expired_users)
        self.expired_items = list(expired_items)
        self.not_finite = 0

    def touch(self, nodes: NDArray[np.int32]) -> None:
        """Notes nodes whose facts or history changed."""
        self._touched.append(nodes)
        if len(self._touched) > _TOUCHED_BATCHES:
            self._touched = [np.unique(np.concatenate(self._touched))]
        self._nodes.mark(nodes)

    def take_changes(self, *, force: bool = False) -> Changes:
        """Ids whose state is worth publishing since the last call; they count as published from now on.

        These are users whose history changed, items whose counts changed, new ids, and all whose embedding turned
        further than the setting allows. With `force`, every id. An item's state is published by one of several shards.
        """
        self._nodes.ids.name_bytes.columns()  # a little each time; a standby that takes over need not make up for it
        moved = self._nodes.propagation.take_dirty()
        nodes = self._nodes.all_nodes() if force else np.unique(np.concatenate([moved, *self._touched]))
        self._touched.clear()
        named = self._publish(nodes[self._nodes.facts.kind[nodes] > 0], force=force)
        is_user = self._nodes.facts.kind[named] == USER
        ids, gone_users, gone_items, is_ours = (
            self._nodes.ids,
            self.expired_users,
            self.expired_items,
            self._nodes.shard.publishes,
        )
        self.expired_users, self.expired_items = [], []
        return Changes(
            users=self._nodes.names_of(named[is_user]),
            items=list(filter(is_ours, self._nodes.names_of(named[~is_user]))),
            expired_users=[name for name in gone_users if name not in ids.users],
            expired_items=[name for name in filter(is_ours, gone_items) if name not in ids.items],
        )

    def user_state(self, user_id: str, published_time_ms: int) -> UserState:
        """The embedding that `take_changes` last selected for publication, with the present history and counts.

        Raises:
            KeyError: the user is unknown.
        """
        node = self._nodes.ids.users[user_id]
        names, facts = self._nodes.ids.names, self._nodes.facts
        recent = [
            PastInteraction(
                item_id=names[past.item],
                event_time_ms=past.time_ms,
                positive=past.positive,
                event_id=past.event_id,
                grade=None if past.grade == FULL_GRADE * past.positive else past.grade,
            )
            for past in self._nodes.histories.entries(node)
        ]
        return UserState(
            user_id=user_id,
            embedding=self._embedding(node),
            recent=recent,
            impressions=_count(facts.impressions[node]),
            positives=_count(facts.positives[node]),
            last_event_time_ms=int(facts.last_event_ms[node]),
            published_time_ms=published_time_ms,
            grades=_count(facts.grades[node]),
        )

    def item_state(self, item_id: str, published_time_ms: int) -> ItemState:
        """The embedding that `take_changes` last selected for publication, with the present counts.

        Raises:
            KeyError: the item is unknown.
        """
        node = self._nodes.ids.items[item_id]
        facts = self._nodes.facts
        return ItemState(
            item_id=item_id,
            embedding=self._embedding(node),
            impressions=_count(facts.impressions[node]),
            positives=_count(facts.positives[node]),
            last_event_time_ms=int(facts.last_event_ms[node]),
            published_time_ms=published_time_ms,
            grades=_count(facts.grades[node]),
        )

    def packed_users(self, user_ids: Sequence[str], published_time_ms: int) -> list[bytes | None]:
        """The packed states of users, as `user_state` tells each; None for one that is unknown."""
        return self._packed(self._nodes.ids.users, USER, user_ids, published_time_ms)

    def packed_items(self, item_ids: Sequence[str], published_time_ms: int) -> list[bytes | None]:
        """The packed states of items, as `item_state` tells each; None for one that is unknown."""
        return self._packed(self._nodes.ids.items, ITEM, item_ids, published_time_ms)

    def _packed(self, known: dict[str, int], kind: int, ids: Sequence[str], now_ms: int) -> list[bytes | None]:
        nodes = [known.get(name) for name in ids]
        there = np.array([node for node in nodes if node is not None], np.int32)
        packed = iter(packed_records(there, kind, self._nodes, self.space, now_ms))
        return [None if node is None else next(packed) for node in nodes]

    def _publish(self, nodes: NDArray[np.int32], *, force: bool) -> NDArray[np.int32]:
        """Selects the nodes worth publishing; their present embedding becomes the published one."""
        facts, propagation = self._nodes.facts, self._nodes.propagation
        z, rounded, finite = self._embeddings(nodes)
        turned = _turns(z, facts.published[nodes].astype(np.float32)) > 1.0 - self._config.publish_min_cosine
        worth = turned | facts.changed[nodes] | (facts.version[nodes] == 0) | force
        named = nodes[worth]
        facts.published[nodes[worth & finite]] = rounded[worth & finite]
        facts.version[named] += 1
        facts.changed[named] = False
        propagation.settle(nodes, z, facts.published[nodes].astype(np.float32))
        self._nodes.mark(named)
        return np.asarray(named)

    def _embeddings(
        self, nodes: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.floating[Any]], NDArray[np.bool_]]:
        """The nodes' embeddings, the same as they are published, and which of them may be.

        What is not finite is computed anew; where that does not help, the last published one stands in.
        """
        propagation, published = self._nodes.propagation, self._nodes.facts.published
        z = propagation.embeddings(nodes)
        rounded, finite = _rounded(z, published.dtype)
        if finite.all():
            return z, rounded, finite
        self.not_finite += int((~finite).sum())
        propagation.restore_finite()
        z = propagation.embeddings(nodes)
        rounded, finite = _rounded(z, published.dtype)
        bad = nodes[~finite]
        z[~finite] = published[bad]
        log.warning(
            "embeddings were not finite and have been computed anew; the others keep the last published one",
            others=bad.size,
            ids=self._nodes.names_of(bad[:_TOLD]),
        )
        return z, rounded, finite

    def _embedding(self, node: int) -> Embedding | None:
        """The published embedding; None for a node without x⁽⁰⁾ and edges."""
        vector = self._nodes.facts.published[node]
        if not vector.any():
            return None
        return Embedding(
            data=vector.tobytes(),
            dtype=self._config.embedding_dtype,
            dim=self._nodes.dim,
            version=max(1, _count(self._nodes.facts.version[node])),
            space=self.space,
        )


def _count(stored: np.int64) -> int:
    """A count; one that has passed the end of its range stays there."""
    return int(stored) if stored >= 0 else _MOST


def _rounded(z: NDArray[np.float32], dtype: np.dtype[Any]) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
    """The rows in the number format, and which of them are finite in it."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = z.astype(dtype)
    return rounded, np.isfinite(rounded).all(axis=1)


def _turns(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far the rows of a have turned from those of b: 1 - cosine, (rows,). Two zero vectors have 0, a zero and
    another vector 1.

    As half the squared distance on the unit sphere, which is exact for the smallest turns: a cosine in float32 is 1 up
    to relative differences of 3e-4.
    """
    of_a, of_b = np.linalg.norm(a, axis=1, keepdims=True), np.linalg.norm(b, axis=1, keepdims=True)
    apart = a / np.where(of_a > 0.0, of_a, 1.0) - b / np.where(of_b > 0.0, of_b, 1.0)
    turns = 0.5 * np.einsum("ij,ij->i", apart, apart)
    only_one_is_zero = (of_a[:, 0] > 0.0) != (of_b[:, 0] > 0.0)
    return np.where(only_one_is_zero, 1.0, turns).astype(np.float32)
