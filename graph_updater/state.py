"""The updater's state machine: interactions and catalogue entries in, fresh user and item states out. Knows no Kafka.

The running updater and the replay that makes training examples drive the same object, so that a feature is made
by one piece of code in both places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graph_updater.config import GraphConfig
from graph_updater.graph import BipartiteGraph, EdgeOps
from graph_updater.histories import (
    DROP_EDGE,
    KEEP_EDGE,
    NEGATIVE,
    NEUTRAL,
    POSITIVE,
    WITHDRAWN,
    Entries,
    Histories,
    pack_event_ids,
)
from graph_updater.identities import ITEM, USER, Identities
from graph_updater.lists import grow
from graph_updater.propagation import Propagation
from schemas.messages import Embedding, Interaction, Item, ItemState, PastInteraction, UserState

TextMap = Callable[[str | None, Mapping[str, str]], NDArray[np.float32]]
"""Title and attributes of an item to its x⁽⁰⁾: (d,) float32."""


@dataclass(frozen=True)
class BaseEmbeddings:
    """What the model bundle gives the graph.

    Attributes:
        item_ids: the items that have a trained x⁽⁰⁾.
        item_vectors: (items, d) float32.
        alphas: the layers' weights α₀ … α_L.
        user_ids: the users that have a trained x⁽⁰⁾; others begin with 0.
        user_vectors: (users, d) float32.
        text_map: x⁽⁰⁾ of an item from its text, for items that have no trained one; None leaves them 0.
    """

    item_ids: Sequence[str]
    item_vectors: NDArray[np.float32]
    alphas: tuple[float, ...]
    user_ids: Sequence[str] = ()
    user_vectors: NDArray[np.float32] | None = None
    text_map: TextMap | None = None

    @property
    def dim(self) -> int:
        """Numbers in an embedding."""
        return int(self.item_vectors.shape[1])


@dataclass(frozen=True)
class Changes:
    """Ids whose state is worth publishing, and ids that have left."""

    users: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    expired_users: list[str] = field(default_factory=list)
    expired_items: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MemoryReport:
    """Bytes held in arrays; ids and their dictionaries come on top, about 200 bytes each.

    Attributes:
        per_edge: both halves of an edge, with the room that its lists leave.
        per_node: a user's or an item's embeddings, sums, counts and published embedding, without edges and history.
        per_past_interaction: an entry of a history, with the room that histories leave.
        total: all of it.
    """

    per_edge: float
    per_node: float
    per_past_interaction: float
    total: int


@dataclass(frozen=True)
class NodeFacts:
    """Columns of what is known of every node beside its edges; one row per node."""

    kind: NDArray[np.uint8]  # USER, ITEM or NOBODY
    impressions: NDArray[np.int64]
    positives: NDArray[np.int64]
    last_event_ms: NDArray[np.int64]
    version: NDArray[np.int64]  # of the last publication; 0 for none yet
    changed: NDArray[np.bool_]  # history or counts changed since the last publication
    in_catalogue: NDArray[np.bool_]  # an item that stays without interactions
    published: NDArray[np.float16] | NDArray[np.float32]  # (nodes, d) the embedding last published

    def columns(self) -> tuple[NDArray[np.generic], ...]:
        """All of them."""
        return (
            self.kind,
            self.impressions,
            self.positives,
            self.last_event_ms,
            self.version,
            self.changed,
            self.in_catalogue,
            self.published,
        )


class UpdaterState:
    """Everything the updater knows, in memory.

    Args:
        config: settings of the engine.
        base: base embeddings and layer weights, from the model bundle.
    """

    def __init__(self, config: GraphConfig, base: BaseEmbeddings) -> None:
        self._config = config
        self._base = base
        self._ids = Identities()
        self._graph = BipartiteGraph(config)
        self._propagation = Propagation(
            self._graph, base.dim, base.alphas, epsilon=config.epsilon, min_cosine=config.publish_min_cosine
        )
        self._histories = Histories(config.history_length)
        self._facts = NodeFacts(
            kind=np.zeros(0, np.uint8),
            impressions=np.zeros(0, np.int64),
            positives=np.zeros(0, np.int64),
            last_event_ms=np.zeros(0, np.int64),
            version=np.zeros(0, np.int64),
            changed=np.zeros(0, np.bool_),
            in_catalogue=np.zeros(0, np.bool_),
            published=np.zeros((0, base.dim), config.embedding_dtype),
        )
        self._touched: set[int] = set()
        self._expired: tuple[list[str], list[str]] = ([], [])
        self._trained_items = frozenset(base.item_ids)
        self._trained_users = dict(zip(base.user_ids, range(len(base.user_ids)), strict=True))
        items, _ = self._ids.item_nodes(base.item_ids)
        self._add_nodes(items, np.asarray(base.item_vectors, np.float32), ITEM)
        self._facts.in_catalogue[items] = True

    def apply(self, interactions: Sequence[Interaction]) -> None:
        """Takes interactions in, in order of arrival; repeated and late ones end in the same state."""
        if not interactions:
            return
        users = self._user_nodes([i.user_id for i in interactions])
        items = self._item_nodes([i.item_id for i in interactions])
        batch = Entries(
            item=items,
            time=np.array([i.event_time_ms for i in interactions], np.int64),
            judgement=np.array([self._judge(i) for i in interactions], np.uint8),
            event=pack_event_ids([i.event_id for i in interactions]),
        )
        verdicts = self._histories.record(users, batch)
        for nodes in (users, items):
            np.add.at(self._facts.impressions, nodes, verdicts.counted)
            np.add.at(self._facts.positives, nodes, verdicts.gained)
            np.maximum.at(self._facts.last_event_ms, nodes, batch.time)
            self._touch(nodes)
        weights = np.array([i.weight for i in interactions], np.float32)
        weights[verdicts.edge == DROP_EDGE] = 0.0
        acts = verdicts.edge != KEEP_EDGE
        self._change_edges(EdgeOps(users[acts], items[acts], weights[acts], batch.time[acts]))

    def apply_items(self, items: Sequence[Item]) -> None:
        """Takes catalogue entries in. Items without a trained x⁽⁰⁾ get theirs from their text."""
        nodes = self._item_nodes([item.item_id for item in items])
        self._facts.in_catalogue[nodes] = True
        if self._base.text_map is None:
            return
        mapped = {
            int(node): self._base.text_map(item.title, item.attributes)
            for node, item in zip(nodes, items, strict=True)
            if item.item_id not in self._trained_items
        }
        if mapped:
            self._propagation.set_base(np.array(list(mapped), np.int32), np.stack(list(mapped.values())))

    def withdraw_items(self, item_ids: Iterable[str]) -> None:
        """Takes items out of the catalogue; each expires when its interactions have."""
        nodes = [self._ids.items[name] for name in item_ids if name in self._ids.items]
        self._facts.in_catalogue[nodes] = False

    def advance_time(self, now_ms: int) -> None:
        """Lets edges expire that have left the window, then nodes that nothing holds any more. Without window: nothing."""
        expired = False
        for removals in self._graph.expired(now_ms):
            self._change_edges(removals)
            expired = True
        if expired:
            self._release_idle(now_ms - self._graph.window_ms)

    def repair(self, count: int) -> None:
        """Computes the sums of the next `count` nodes anew; to be called now and then against rounding drift."""
        self._propagation.repair(count)

    def take_changes(self, *, force: bool = False) -> Changes:
        """Ids whose state is worth publishing since the last call; what it names counts as published from now on.

        Users whose history changed, items whose counts changed, whoever's embedding turned further than the setting
        allows, and who is new. `force` names everybody.
        """
        expired_users, expired_items = self._expired
        self._expired = ([], [])
        moved = self._propagation.take_dirty()
        nodes = self._everybody() if force else np.union1d(moved, np.fromiter(self._touched, np.int32))
        self._touched.clear()
        named = self._publish(nodes.astype(np.int32), force=force)
        is_user = self._facts.kind[named] == USER
        return Changes(
            users=self._names_of(named[is_user]),
            items=self._names_of(named[~is_user]),
            expired_users=[name for name in expired_users if name not in self._ids.users],
            expired_items=[name for name in expired_items if name not in self._ids.items],
        )

    def user_state(self, user_id: str, published_time_ms: int) -> UserState:
        """The user's state as `take_changes` last named it for publication, with the history as it is now."""
        node = self._ids.users[user_id]
        names = self._ids.names
        recent = [
            PastInteraction(item_id=names[item], event_time_ms=time_ms, positive=positive, event_id=event_id)
            for item, time_ms, positive, event_id in self._histories.entries(node)
        ]
        return UserState(
            user_id=user_id,
            embedding=self._embedding(node),
            recent=recent,
            impressions=int(self._facts.impressions[node]),
            positives=int(self._facts.positives[node]),
            last_event_time_ms=int(self._facts.last_event_ms[node]),
            published_time_ms=published_time_ms,
        )

    def item_state(self, item_id: str, published_time_ms: int) -> ItemState:
        """The item's state as `take_changes` last named it for publication."""
        node = self._ids.items[item_id]
        return ItemState(
            item_id=item_id,
            embedding=self._embedding(node),
            impressions=int(self._facts.impressions[node]),
            positives=int(self._facts.positives[node]),
            last_event_time_ms=int(self._facts.last_event_ms[node]),
            published_time_ms=published_time_ms,
        )

    def user_embedding(self, user_id: str) -> NDArray[np.float32] | None:
        """The user's embedding of this moment: (d,); None for a user never met."""
        return self._fresh(self._ids.users.get(user_id))

    def item_embedding(self, item_id: str) -> NDArray[np.float32] | None:
        """The item's embedding of this moment: (d,); None for an item never met."""
        return self._fresh(self._ids.items.get(item_id))

    def memory_report(self) -> MemoryReport:
        """Bytes held, in all and per edge, node and past interaction."""
        nodes, (edges, rows) = len(self._ids.names), self._graph.nbytes()
        rows += self._propagation.nbytes() + sum(column.nbytes for column in self._facts.columns())
        past = self._histories.nbytes()
        return MemoryReport(
            per_edge=edges / max(1, self._graph.edge_count),
            per_node=rows / max(1, nodes),
            per_past_interaction=past / max(1, self._histories.entry_count),
            total=edges + rows + past,
        )

    def _judge(self, interaction: Interaction) -> int:
        """What an interaction says about the pair. A mere impression or view says nothing against an earlier click."""
        if interaction.kind == "removal":
            return WITHDRAWN
        if interaction.positive is not None:
            return POSITIVE if interaction.positive else NEGATIVE
        if interaction.kind in self._config.positive_kinds:
            return POSITIVE
        return NEGATIVE if interaction.kind == "dislike" else NEUTRAL

    def _user_nodes(self, ids: list[str]) -> NDArray[np.int32]:
        nodes, new = self._ids.user_nodes(ids)
        if new:
            base = np.zeros((len(new), self._base.dim), np.float32)
            rows = [self._trained_users.get(self._ids.names[node], -1) for node in new]
            trained = np.array(rows) >= 0
            if self._base.user_vectors is not None:
                base[trained] = self._base.user_vectors[np.array(rows)[trained]]
            self._add_nodes(new, base, USER)
        return np.array(nodes, np.int32)

    def _item_nodes(self, ids: list[str]) -> NDArray[np.int32]:
        nodes, new = self._ids.item_nodes(ids)
        if new:
            self._add_nodes(new, np.zeros((len(new), self._base.dim), np.float32), ITEM)
        return np.array(nodes, np.int32)

    def _add_nodes(self, new: list[int], base: NDArray[np.float32], kind: int) -> None:
        """Gives new numbers their rows; numbers that were used before have theirs already, empty."""
        room = len(self._ids.names)
        self._graph.add_nodes(room)
        self._propagation.add_nodes(room)
        self._histories.add_nodes(room)
        for column in self._facts.columns():
            grow(column, room)
        nodes = np.array(new, np.int32)
        self._facts.kind[nodes] = kind
        self._propagation.set_base(nodes, base)

    def _change_edges(self, ops: EdgeOps) -> None:
        if ops.user.size == 0:
            return
        factor = self._graph.rescale_factor(int(ops.time.max()))
        if factor != 1.0:
            self._graph.rescale(factor)
            self._propagation.rescale(factor)
        self._propagation.apply(self._graph.apply(ops))

    def _publish(self, nodes: NDArray[np.int32], *, force: bool) -> NDArray[np.int32]:
        """Which of these nodes are worth publishing; their present embedding becomes the published one."""
        facts = self._facts
        z = self._propagation.embeddings(nodes)
        published = facts.published[nodes].astype(np.float32)
        turned = _cosines(z, published) < self._config.publish_min_cosine
        worth = turned | facts.changed[nodes] | (facts.version[nodes] == 0) | force
        named = nodes[worth]
        facts.published[named] = z[worth]
        facts.version[named] += 1
        facts.changed[named] = False
        self._propagation.settle(nodes, z, facts.published[nodes].astype(np.float32))
        return named

    def _everybody(self) -> NDArray[np.int32]:
        return np.flatnonzero(self._facts.kind[: len(self._ids.names)]).astype(np.int32)

    def _touch(self, nodes: NDArray[np.int32]) -> None:
        self._facts.changed[nodes] = True
        self._touched.update(nodes.tolist())

    def _names_of(self, nodes: NDArray[np.int32]) -> list[str]:
        names = self._ids.names
        return [names[node] for node in nodes.tolist()]

    def _fresh(self, node: int | None) -> NDArray[np.float32] | None:
        if node is None:
            return None
        return np.asarray(self._propagation.embeddings(np.array([node], np.int32))[0])

    def _embedding(self, node: int) -> Embedding | None:
        """The published embedding; None where nothing is known: no x⁽⁰⁾ and no edges."""
        vector = self._facts.published[node]
        if not vector.any():
            return None
        return Embedding(
            data=vector.tobytes(),
            dtype=self._config.embedding_dtype,
            dim=self._base.dim,
            version=max(1, int(self._facts.version[node])),
        )

    def _release_idle(self, cutoff_ms: int) -> None:
        """Forgets users, then items, that have no edge, met nothing since the cutoff and are named nowhere."""
        expired_users, expired_items = self._expired
        for node in self._idle(cutoff_ms, USER):
            self._histories.clear(node)
            expired_users.append(self._release(self._ids.users, node))
        for node in self._idle(cutoff_ms, ITEM):
            expired_items.append(self._release(self._ids.items, node))

    def _idle(self, cutoff_ms: int, kind: int) -> list[int]:
        nodes, facts = len(self._ids.names), self._facts
        idle = facts.kind[:nodes] == kind
        idle &= self._graph.adjacency.lists.length[:nodes] == 0
        idle &= facts.last_event_ms[:nodes] < cutoff_ms
        idle &= ~facts.in_catalogue[:nodes] & (self._histories.mentions[:nodes] == 0)
        return [int(node) for node in np.flatnonzero(idle)]

    def _release(self, table: dict[str, int], node: int) -> str:
        self._propagation.set_base(np.array([node], np.int32), np.zeros((1, self._base.dim), np.float32))
        for column in self._facts.columns():
            column[node] = 0
        self._touched.discard(node)
        return self._ids.release(table, node)


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of each pair of rows: (rows,). Two zero vectors are alike, a zero and another are not."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~(a.any(axis=1) | b.any(axis=1))
    dots = np.einsum("ij,ij->i", a, b)
    return np.where(norms > 0.0, dots / np.where(norms > 0.0, norms, 1.0), both_zero).astype(np.float32)
