"""The updater's state machine: interactions and catalogue entries in, fresh user and item states out. Knows no Kafka.

The running updater and the replay that makes training examples drive the same object, so that a feature is made
by one piece of code in both places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graph_updater.adjacency import EdgeOps
from graph_updater.base_embeddings import BaseEmbeddings
from graph_updater.config import GraphConfig
from graph_updater.histories import (
    DROP_EDGE,
    KEEP_EDGE,
    NEGATIVE,
    NEUTRAL,
    POSITIVE,
    WITHDRAWN,
    Entries,
    pack_event_ids,
)
from graph_updater.identities import ITEM, USER
from graph_updater.nodes import MemoryReport, Nodes
from graph_updater.snapshot import Cut, SnapshotCopy, restore_nodes
from schemas.messages import Embedding, Interaction, Item, ItemState, PastInteraction, UserState

__all__ = ["BaseEmbeddings", "Changes", "UpdaterState"]

_TOUCHED_BATCHES: Final = 256
"""Micro-batches whose nodes are remembered one by one before they are merged: a long backlog takes no more memory."""


@dataclass(frozen=True)
class Changes:
    """Ids whose state is worth publishing, and ids that have left."""

    users: list[str]
    items: list[str]
    expired_users: list[str]
    expired_items: list[str]


class UpdaterState:
    """Everything the updater knows, in memory.

    Args:
        config: settings of the engine.
        base: base embeddings and layer weights, from the model bundle.
    """

    def __init__(self, config: GraphConfig, base: BaseEmbeddings) -> None:
        self._config = config
        self._base = base
        self._trained_items = frozenset(base.item_ids)
        self._trained_users = {name: row for row, name in enumerate(base.user_ids)}
        self._nodes = Nodes(config, base.dim, base.alphas)
        self._touched: list[NDArray[np.int32]] = []
        self._expired_users: list[str] = []
        self._expired_items: list[str] = []
        self._copy: SnapshotCopy | None = None
        items, _ = self._nodes.items(base.item_ids)
        self._nodes.facts.in_catalogue[items] = True
        self._nodes.propagation.set_base(items, np.asarray(base.item_vectors, np.float32))

    def apply(self, interactions: Sequence[Interaction]) -> None:
        """Takes interactions in, in order of arrival; repeated and late ones end in the same state."""
        if not interactions:
            return
        users = self._users([i.user_id for i in interactions])
        items, _ = self._nodes.items([i.item_id for i in interactions])
        batch = Entries(
            item=items,
            time=np.array([i.event_time_ms for i in interactions], np.int64),
            judgement=np.array([self._judge(i) for i in interactions], np.uint8),
            event=pack_event_ids([i.event_id for i in interactions]),
        )
        verdicts = self._nodes.histories.record(users, batch)
        facts = self._nodes.facts
        for nodes in (users, items):
            np.add.at(facts.impressions, nodes, verdicts.counted)
            np.add.at(facts.positives, nodes, verdicts.gained)
            np.maximum.at(facts.last_event_ms, nodes, batch.time)
            facts.changed[nodes] = True
            self._touch(nodes)
        weights = np.array([i.weight for i in interactions], np.float32)
        weights[verdicts.edge == DROP_EDGE] = 0.0
        acts = verdicts.edge != KEEP_EDGE
        self._change_edges(EdgeOps(users[acts], items[acts], weights[acts], batch.time[acts]))

    def apply_items(self, items: Sequence[Item]) -> None:
        """Takes catalogue entries in. Items without a trained x⁽⁰⁾ get theirs from their text."""
        nodes, _ = self._nodes.items([item.item_id for item in items])
        self._nodes.facts.in_catalogue[nodes] = True
        self._touch(nodes)
        if self._base.text_map is None:
            return
        mapped = {
            node: self._base.text_map(item.title, item.attributes)
            for node, item in zip(nodes.tolist(), items, strict=True)
            if item.item_id not in self._trained_items
        }
        if mapped:
            self._nodes.propagation.set_base(np.array(list(mapped), np.int32), np.stack(list(mapped.values())))

    def withdraw_items(self, item_ids: Iterable[str]) -> None:
        """Takes items out of the catalogue; each expires when its interactions have."""
        table = self._nodes.ids.items
        nodes = np.array([table[name] for name in item_ids if name in table], np.int32)
        self._nodes.facts.in_catalogue[nodes] = False
        self._touch(nodes)

    def advance_time(self, now_ms: int) -> None:
        """Lets edges expire that have left the window, then nodes that nothing holds any more."""
        graph, expired = self._nodes.graph, False
        for removals in graph.expired(now_ms):
            self._change_edges(removals)
            expired = True
        if expired:
            cutoff_ms = now_ms - graph.window_ms
            self._expired_users += self._release(self._nodes.idle(cutoff_ms, USER), USER)
            self._expired_items += self._release(self._nodes.idle(cutoff_ms, ITEM), ITEM)

    def repair(self, count: int) -> None:
        """Computes the sums of the next `count` nodes anew; to be called now and then against rounding drift."""
        self._nodes.propagation.repair(count)

    def take_changes(self, *, force: bool = False) -> Changes:
        """Ids whose state is worth publishing since the last call; what it names counts as published from now on.

        Users whose history changed, items whose counts changed, whoever's embedding turned further than the setting
        allows, and who is new. `force` names everybody.
        """
        moved = self._nodes.propagation.take_dirty()
        nodes = self._nodes.everybody() if force else np.unique(np.concatenate([moved, *self._touched]))
        self._touched.clear()
        named = self._publish(nodes[self._nodes.facts.kind[nodes] > 0], force=force)
        is_user = self._nodes.facts.kind[named] == USER
        ids, gone_users, gone_items = self._nodes.ids, self._expired_users, self._expired_items
        self._expired_users, self._expired_items = [], []
        return Changes(
            users=self._nodes.names_of(named[is_user]),
            items=self._nodes.names_of(named[~is_user]),
            expired_users=[name for name in gone_users if name not in ids.users],
            expired_items=[name for name in gone_items if name not in ids.items],
        )

    def user_state(self, user_id: str, published_time_ms: int) -> UserState:
        """The user's state: the embedding that `take_changes` last named for publication, the history as it is now."""
        node = self._nodes.ids.users[user_id]
        names, facts = self._nodes.ids.names, self._nodes.facts
        recent = [
            PastInteraction(item_id=names[item], event_time_ms=time_ms, positive=positive, event_id=event_id)
            for item, time_ms, positive, event_id in self._nodes.histories.entries(node)
        ]
        return UserState(
            user_id=user_id,
            embedding=self._embedding(node),
            recent=recent,
            impressions=int(facts.impressions[node]),
            positives=int(facts.positives[node]),
            last_event_time_ms=int(facts.last_event_ms[node]),
            published_time_ms=published_time_ms,
        )

    def item_state(self, item_id: str, published_time_ms: int) -> ItemState:
        """The item's state: the embedding that `take_changes` last named for publication, the counts as of now."""
        node = self._nodes.ids.items[item_id]
        facts = self._nodes.facts
        return ItemState(
            item_id=item_id,
            embedding=self._embedding(node),
            impressions=int(facts.impressions[node]),
            positives=int(facts.positives[node]),
            last_event_time_ms=int(facts.last_event_ms[node]),
            published_time_ms=published_time_ms,
        )

    def user_embeddings(self, user_ids: Sequence[str]) -> NDArray[np.float32]:
        """The users' embeddings of this moment: (users, d); zero for users never met."""
        return self._embeddings(self._nodes.ids.users, user_ids)

    def item_embeddings(self, item_ids: Sequence[str]) -> NDArray[np.float32]:
        """The items' embeddings of this moment: (items, d); zero for items never met."""
        return self._embeddings(self._nodes.ids.items, item_ids)

    def memory_report(self) -> MemoryReport:
        """Bytes held, in all and per edge, node and past interaction."""
        return self._nodes.memory_report()

    def start_snapshot(self) -> SnapshotCopy:
        """A copy to be made step by step between micro-batches; at most one at a time, a new one replaces the last."""
        self._copy = SnapshotCopy(self._nodes, self._base.alphas, (self._expired_users, self._expired_items))
        return self._copy

    def finish_snapshot(self) -> Cut:
        """The state of this moment, from the copy begun last; nothing is marked any more."""
        copy, self._copy = self._copy or self.start_snapshot(), None
        return copy.finish()

    def snapshot_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The whole state as arrays and metadata, copied at one go."""
        self.start_snapshot()
        return self.finish_snapshot().merge()

    @classmethod
    def restore(
        cls,
        config: GraphConfig,
        base: BaseEmbeddings,
        arrays: Mapping[str, NDArray[Any]],
        metadata: Mapping[str, Any],
    ) -> UpdaterState:
        """The state that a snapshot holds; embeddings are computed anew from its edges, exactly.

        What the snapshot's publisher had taken counts as published; items that only `base` knows are added.

        Raises:
            ForeignSnapshot: the snapshot was made for another model or by another version.
        """
        state = cls(config, base)
        state._nodes = restore_nodes(config, base, arrays, metadata)
        state._touched = [np.flatnonzero(state._nodes.facts.changed).astype(np.int32)]
        state._expired_users = list(metadata["expired_users"])
        state._expired_items = list(metadata["expired_items"])
        return state

    def _judge(self, interaction: Interaction) -> int:
        """What an interaction says about the pair. A mere impression or view says nothing against an earlier click."""
        if interaction.kind == "removal":
            return WITHDRAWN
        if interaction.positive is not None:
            return POSITIVE if interaction.positive else NEGATIVE
        if interaction.kind in self._config.positive_kinds:
            return POSITIVE
        return NEGATIVE if interaction.kind == "dislike" else NEUTRAL

    def _users(self, ids: list[str]) -> NDArray[np.int32]:
        """The users' nodes; those trained with get their x⁽⁰⁾ when they first appear."""
        nodes, new = self._nodes.users(ids)
        names, vectors = self._nodes.ids.names, self._base.user_vectors
        trained = [(node, self._trained_users[names[node]]) for node in new if names[node] in self._trained_users]
        if trained and vectors is not None:
            known, rows = np.array(trained, np.int32).T
            self._nodes.propagation.set_base(known, np.asarray(vectors[rows], np.float32))
        return nodes

    def _change_edges(self, ops: EdgeOps) -> None:
        if ops.user.size == 0:
            return
        graph, propagation = self._nodes.graph, self._nodes.propagation
        factor = graph.rescale_factor(int(ops.time.max()))
        if factor != 1.0:
            graph.rescale(factor)
            propagation.rescale(factor)
        changes = graph.apply(ops)
        propagation.apply(changes)
        if self._copy is not None:
            self._copy.mark(changes.user)
            self._copy.mark(changes.item)

    def _publish(self, nodes: NDArray[np.int32], *, force: bool) -> NDArray[np.int32]:
        """Which of these nodes are worth publishing; their present embedding becomes the published one."""
        facts, propagation = self._nodes.facts, self._nodes.propagation
        z = propagation.embeddings(nodes)
        turned = _cosines(z, facts.published[nodes].astype(np.float32)) < self._config.publish_min_cosine
        worth = turned | facts.changed[nodes] | (facts.version[nodes] == 0) | force
        named = nodes[worth]
        facts.published[named] = z[worth]
        facts.version[named] += 1
        facts.changed[named] = False
        propagation.settle(nodes, z, facts.published[nodes].astype(np.float32))
        if self._copy is not None:
            self._copy.mark(named)
        return np.asarray(named)

    def _release(self, nodes: NDArray[np.int32], kind: int) -> list[str]:
        self._touch(nodes)
        return self._nodes.release(nodes, kind)

    def _touch(self, nodes: NDArray[np.int32]) -> None:
        """Remembers nodes whose facts or history changed, for publication and for a snapshot being copied."""
        self._touched.append(nodes)
        if len(self._touched) > _TOUCHED_BATCHES:
            self._touched = [np.unique(np.concatenate(self._touched))]
        if self._copy is not None:
            self._copy.mark(nodes)

    def _embeddings(self, table: Mapping[str, int], ids: Sequence[str]) -> NDArray[np.float32]:
        nodes = np.array([table.get(name, -1) for name in ids], np.int32)
        z = np.zeros((nodes.size, self._base.dim), np.float32)
        z[nodes >= 0] = self._nodes.propagation.embeddings(nodes[nodes >= 0])
        return z

    def _embedding(self, node: int) -> Embedding | None:
        """The published embedding; None where nothing is known: no x⁽⁰⁾ and no edges."""
        vector = self._nodes.facts.published[node]
        if not vector.any():
            return None
        return Embedding(
            data=vector.tobytes(),
            dtype=self._config.embedding_dtype,
            dim=self._base.dim,
            version=max(1, int(self._nodes.facts.version[node])),
        )


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of each pair of rows: (rows,). Two zero vectors are alike, a zero and another are not."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~(a.any(axis=1) | b.any(axis=1))
    dots = np.einsum("ij,ij->i", a, b)
    return np.where(norms > 0.0, dots / np.where(norms > 0.0, norms, 1.0), both_zero).astype(np.float32)
