"""All tables with a row per user and item: id, facts, edges, embedding, history. Row i of each is node i."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.bipartite import BipartiteGraph
from graph_updater.graph.config import GraphConfig
from graph_updater.graph.parts import COUNTS, IS_MENTIONED, LAST_EVENT_MS
from graph_updater.graph.propagation import Propagation
from graph_updater.graph.shard import WHOLE, Shard
from graph_updater.graph.sharing import Sharing
from graph_updater.state.histories import Histories
from graph_updater.state.identities import ITEM, USER, Identities
from models.prompt_limits import HISTORY_LENGTH
from runtime.arrays import grow


@dataclass(frozen=True)
class NodeFacts:
    """Facts about each node besides its edges and history, as columns."""

    kind: NDArray[np.uint8]  # USER, ITEM or NOBODY
    impressions: NDArray[np.int64]  # an item's over all shards, and so on
    positives: NDArray[np.int64]
    grades: NDArray[np.int64]  # sum over the impressions, in FULL_GRADE-ths
    last_event_ms: NDArray[np.int64]
    version: NDArray[np.int64]  # of the last publication; 0 for none yet
    changed: NDArray[np.bool_]  # history or counts changed since the last publication
    in_catalogue: NDArray[np.bool_]  # an item that is kept without interactions
    published: NDArray[np.float16] | NDArray[np.float32]  # (nodes, d) the embedding last published

    @classmethod
    def empty(cls, dim: int, dtype: str) -> NodeFacts:
        """Columns of no rows; `dtype` is that of published embeddings."""
        whole_numbers = ("impressions", "positives", "grades", "last_event_ms", "version")
        return cls(
            kind=np.zeros(0, np.uint8),
            **{name: np.zeros(0, np.int64) for name in whole_numbers},
            changed=np.zeros(0, np.bool_),
            in_catalogue=np.zeros(0, np.bool_),
            published=np.zeros((0, dim), dtype),
        )

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """All of them by name."""
        return dict(vars(self))


@dataclass(frozen=True)
class MemoryReport:
    """Bytes held in arrays. Ids and their dictionaries come on top, about 200 bytes each.

    Attributes:
        per_edge: both halves of an edge, with the room that its lists leave.
        per_node: a user's or an item's embeddings, sums, counts and published embedding, without edges and history.
        per_past_interaction: an entry of a history, with the room that histories leave.
        total: all arrays.
    """

    per_edge: float
    per_node: float
    per_past_interaction: float
    total: int


class Nodes:
    """The tables and their common numbering.

    Args:
        config: settings of the graph.
        dim: dimension of the embeddings.
        alphas: the layer weights.
        history_length: interactions kept per user.
        shard: which of the users are here.

    Attributes:
        sharing: of the items with the other shards; None without any.
    """

    def __init__(
        self,
        config: GraphConfig,
        dim: int,
        alphas: tuple[float, ...],
        history_length: int = HISTORY_LENGTH,
        shard: Shard = WHOLE,
    ) -> None:
        self.shard = shard
        self.dim = dim
        self.ids = Identities()
        self.graph = BipartiteGraph(config)
        self.propagation = Propagation(
            self.graph,
            dim,
            alphas,
            epsilon=config.epsilon,
            min_cosine=config.publish_min_cosine,
            one_of_several=shard.is_one_of_several,
        )
        self.sharing = (
            Sharing(self.graph, self.propagation, shard, config.half_life_ms, self.own_counts)
            if shard.is_one_of_several
            else None
        )
        self.histories = Histories(history_length)
        self.facts = NodeFacts.empty(dim, config.embedding_dtype)
        self.marked: list[NDArray[np.int32]] | None = None
        """Nodes changed since a snapshot's copy began; None while there is no copy."""

    def __len__(self) -> int:
        return len(self.ids.names)

    def users(self, ids: Iterable[str]) -> tuple[NDArray[np.int32], list[int]]:
        """The nodes of users, and which of them are new."""
        nodes, new = self.ids.user_nodes(ids)
        self._add_rows(new, USER)
        return np.array(nodes, np.int32), new

    def items(self, ids: Iterable[str]) -> tuple[NDArray[np.int32], list[int]]:
        """The nodes of items, and which of them are new."""
        nodes, new = self.ids.item_nodes(ids)
        self._add_rows(new, ITEM)
        return np.array(nodes, np.int32), new

    def make_room(self) -> None:
        """Grows all tables to the number of nodes."""
        room = len(self)
        self.graph.add_nodes(room)
        self.propagation.add_nodes(room)
        self.histories.add_nodes(room)
        for column in self.facts.columns().values():
            grow(column, room)

    def keep_histories_of(self, length: int) -> None:
        """From now on so many interactions are kept per user: longer histories lose their oldest at once."""
        self.mark(self.histories.keep(length))

    def mark(self, nodes: NDArray[np.int32]) -> None:
        """Notes changed nodes for the snapshot being copied, if there is one."""
        if self.marked is not None:
            self.marked.append(nodes)

    def names_of(self, nodes: NDArray[np.int32]) -> list[str]:
        """The nodes' ids."""
        names = self.ids.names
        return [names[node] for node in nodes.tolist()]

    def all_nodes(self) -> NDArray[np.int32]:
        """All nodes that are a user or an item."""
        return np.flatnonzero(self.facts.kind[: len(self)]).astype(np.int32)

    def idle_users(self, cutoff_ms: int) -> NDArray[np.int32]:
        """Users without events since the cutoff."""
        nodes, facts = len(self), self.facts
        return np.flatnonzero((facts.kind[:nodes] == USER) & (facts.last_event_ms[:nodes] < cutoff_ms)).astype(np.int32)

    def idle_items(self, cutoff_ms: int) -> NDArray[np.int32]:
        """Items without events since the cutoff, without edges, in no history and not in the catalogue; the same in the
        other shards, as far as they have told.
        """
        nodes, facts = len(self), self.facts
        idle = (facts.kind[:nodes] == ITEM) & (facts.last_event_ms[:nodes] < cutoff_ms)
        idle &= self.graph.adjacency.lists.length[:nodes] == 0
        idle &= ~facts.in_catalogue[:nodes] & (self.histories.mentions[:nodes] == 0)
        items = np.flatnonzero(idle).astype(np.int32)
        if self.sharing is None or not items.size:
            return items
        self.sharing.note(items)  # that no history mentions them any longer may be news to the others
        others = (self.sharing.others_edges(items) > 0) | (self.sharing.others_counts(items)[:, IS_MENTIONED] > 0)
        return np.asarray(items[~others])

    def told_items(self, items: NDArray[np.int32]) -> list[str]:
        """Ids of those of which this shard has told the others a part."""
        if self.sharing is None or not items.size:
            return []
        return self.names_of(items[self.sharing.store.has(self.shard.number, items)])

    def release(self, nodes: NDArray[np.int32], kind: int) -> list[str]:
        """Deletes nodes of that kind that have no edges. Returns their ids."""
        if self.sharing is not None and kind == ITEM:
            self.sharing.remove_items(nodes)
        self.propagation.set_base(nodes, np.zeros((nodes.size, self.dim), np.float32))
        for column in self.facts.columns().values():
            column[nodes] = 0
        for node in nodes.tolist():
            self.histories.clear(node)
        table = self.ids.users if kind == USER else self.ids.items
        return [self.ids.release(table, node) for node in nodes.tolist()]

    def memory_report(self) -> MemoryReport:
        """Bytes held, in all and per edge, node and past interaction."""
        edges, rows = self.graph.nbytes()
        rows += 0 if self.sharing is None else self.sharing.store.nbytes()
        rows += self.propagation.nbytes() + sum(column.nbytes for column in self.facts.columns().values())
        past = self.histories.nbytes()
        return MemoryReport(
            per_edge=edges / max(1, self.graph.edge_count),
            per_node=rows / max(1, len(self)),
            per_past_interaction=past / max(1, self.histories.entry_count),
            total=edges + rows + past,
        )

    def _add_rows(self, new: list[int], kind: int) -> None:
        if new:
            self.make_room()
            self.facts.kind[new] = kind
            nodes = np.array(new, np.int32)
            if self.sharing is not None and kind == ITEM:
                self.sharing.add_items(nodes)
            self.propagation.refresh(nodes)

    def own_counts(self, items: NDArray[np.int32]) -> NDArray[np.int64]:
        """What this shard alone has counted of items: (items, COUNTS); the latest event is that of all."""
        facts, own = self.facts, np.zeros((items.size, COUNTS), np.int64)
        for column, counted in enumerate((facts.impressions, facts.positives, facts.grades, facts.last_event_ms)):
            own[:, column] = counted[items]
        if self.sharing is not None:
            own[:, :LAST_EVENT_MS] -= self.sharing.others_counts(items)[:, :LAST_EVENT_MS]
        own[:, IS_MENTIONED] = self.histories.mentions[items] > 0
        return own
