"""Several shards that share the items: each owns some users with all their edges, and tells the others its part of S.

**What is exchanged.** An item's neighbours are users of all shards. Its sums and its degree are sums over shards,

    S⁽ˡ⁾ᵥ = Σⱼ Pⱼ⁽ˡ⁾ᵥ        Pⱼ⁽ˡ⁾ᵥ = Σ w_uv ŷ⁽ˡ⁾ᵤ over the users u of shard j        dᵥ = Σⱼ dⱼᵥ

Shard k knows its own part and P̂ⱼ, what each other one has told last. With S⁽ˡ⁾ᵥ = Pₖ⁽ˡ⁾ᵥ + Σⱼ P̂ⱼ⁽ˡ⁾ᵥ it has the
whole embedding of every item, and propagates as one shard does (`graph_updater.graph.propagation`): what an item's y
has moved it pushes to its own users; what these have moved changes its own part. A part is told again once its degree
has changed or one of its layers has moved further than a limit, ‖Pⱼ⁽ˡ⁾ᵥ - P̂ⱼ⁽ˡ⁾ᵥ‖ > τ⁽ˡ⁾ᵥ. So a change travels through
the shards layer by layer, and comes to rest: parts of layer 0 depend on the shard's own edges alone, those of layer
l + 1 on parts of layer l.

**A part is told whole**, never as an increment. A repeated one changes nothing, and where several follow one another
(a compacted topic, a reader that was away) the last one is enough. Only the order of one shard's parts of one item
matters.

**The bound.** Once all parts told have arrived, degrees are exact, and what is not told is at most τ per other shard.
This adds to the bound of S just as what a neighbour has not told does:

    item   b⁽ˡ⁾ᵥ = Σᵤ w_uv (t⁽ˡ⁾ᵤ + e⁽ˡ⁾ᵤ) + Σⱼ τ⁽ˡ⁾ᵥ over the other shards j
    user   b⁽ˡ⁾ᵤ = Σᵥ w_uv (t⁽ˡ⁾ᵥ + e⁽ˡ⁾ᵥ)        e⁽ˡ⁺¹⁾ = b⁽ˡ⁾ / d        ‖z̃ - z‖ ≤ Σₗ αₗ₊₁ b⁽ˡ⁾ / √d

in the first line over the users of all shards, with t and e as their own shards have them; in the second with the
limits and errors that the items have in the user's shard. With one shard the last term of the first line is gone.

**The limit** is τ⁽ˡ⁾ᵥ = ε ‖S⁽ˡ⁾ᵥ‖ / √N for N shards. As y⁽ˡ⁺¹⁾ᵥ = S⁽ˡ⁾ᵥ / dᵥ, what N - 1 others have not told shifts an
item's y by less than ε ‖y‖ if the directions are unrelated, which is what its own limit t allows, and by
ε ‖y‖ (N - 1) / √N at most. Below a millionth of ‖S⁽ˡ⁾ᵥ‖, where float32 cannot tell, nothing is told again, so that
rounding errors of two shards do not answer each other for ever.

**Which parts to look at.** The kernels note every item whose own part may have moved; receiving a part notes it as
well, since the limit is relative to the whole.

**Parts that may wait.** Most parts move because embeddings of users have moved, not because edges have changed. They
may be told less often (`take_owed`): until then S is further off, but degrees are exact.

**Who tells.** Of a shard's updaters the leader tells; to a standby the shard has told what the records say (`correct`).
When it comes to lead it looks at every item noted since it began, and tells what differs. From then on records of its
shard's own are no news: they are its own, or older than its first. Should it lead no longer, what it has told and does
not know to be published is owed again.

**Decay.** Stored weights are relative to a landmark, and every shard moves its own. A part is told with it, and scaled
by whoever adds it up: degrees by 2^(difference / half-life), sums by the root of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.bipartite import BipartiteGraph
from graph_updater.graph.node_tables import IS_ITEM, IS_OWED, OWED_QUEUE, PEAK, RHO, UNKNOWN_LANDMARK
from graph_updater.graph.parts import COUNTS, LAST_EVENT_MS, Parts, PartStore
from graph_updater.graph.propagation import Propagation
from graph_updater.graph.shard import Shard
from runtime.arrays import grow

_AT_ONCE: Final = 16_384
"""Items whose parts are looked at or copied together."""
_MOST_UNCONFIRMED: Final = 256
"""Sets of items kept one by one before they are merged, so that a long wait for a publication takes little memory."""
_ROUNDING: Final = 1e-9
"""Relative difference of a degree that is added up anew."""
LEAST_SHARE: Final = 2.0**-20
"""The least limit, relative to the whole sum."""


class Told(NamedTuple):
    """What a shard has told: its number, nodes of items, each once, and its parts of them."""

    shard: int
    nodes: NDArray[np.int32]
    parts: Parts


Counts = Callable[[NDArray[np.int32]], NDArray[np.int64]]


def _no_counts(nodes: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.zeros((nodes.size, COUNTS), np.int64)


class Sharing:
    """One shard's exchange of parts with the others.

    Args:
        graph: the shard's own edges.
        propagation: over them; made as `one_of_several`.
        shard: which one this is, of how many.
        half_life_ms: of the graph's weights; 0 without decay.
        own_counts: what the shard itself has counted of items: (items,) nodes to (items, COUNTS).

    Attributes:
        store: what has been told, by this shard and by the others.
    """

    def __init__(
        self,
        graph: BipartiteGraph,
        propagation: Propagation,
        shard: Shard,
        half_life_ms: int = 0,
        own_counts: Counts = _no_counts,
    ) -> None:
        self._graph = graph
        self._propagation = propagation
        self._shard = shard.number
        self._others = [number for number in range(shard.shards) if number != shard.number]
        self._half_life_ms = half_life_ms
        self._own_counts = own_counts
        self._landmark_ms = graph.landmark_ms
        self._tells = np.zeros(0, np.bool_)  # (nodes,) those whose part this process has told, and nobody since
        self._waits = np.zeros(0, np.bool_)  # (nodes,) those that only embeddings of users have moved
        self._unconfirmed: list[NDArray[np.int32]] = []
        self.store = PartStore(shard.shards, propagation.layers, propagation.dim, half_life_ms)
        self._share = max(propagation.epsilon / math.sqrt(shard.shards), LEAST_SHARE)

    def add_items(self, nodes: NDArray[np.int32]) -> None:
        """These nodes, which have rows in the tables, are items."""
        self.store.add_items(nodes)
        for column in (self._tells, self._waits):
            grow(column, int(nodes.max(initial=-1)) + 1)
        self._propagation.tables.dirty[nodes] |= np.uint8(IS_ITEM)

    def remove_items(self, nodes: NDArray[np.int32]) -> None:
        """These nodes, which have no edges, are no items any longer: all parts of them are forgotten."""
        for shard in (self._shard, *self._others):
            self.store.remove(shard, nodes)
        self._add_up(nodes)
        self._tells[nodes] = self._waits[nodes] = False
        self._propagation.tables.dirty[nodes] &= ~np.uint8(IS_ITEM)

    def limits(self, nodes: NDArray[np.int32]) -> NDArray[np.float32]:
        """How far a part may move before it is told again: (nodes, L)."""
        whole = np.linalg.norm(self._propagation.tables.sums[nodes], axis=2)
        return np.asarray(self._share * whole, np.float32)

    def take_owed(self, *, of_own_edges: bool = False) -> NDArray[np.int32]:
        """The items whose part is to be told (again); from now on `told` gives it, and it counts as told.

        Args:
            of_own_edges: only those whose degree, number of edges or counts have changed. The others, moved by the
                embeddings of their users, stay owed; the bound holds once they have been told, too.
        """
        self.follow_landmark()
        nodes = self._take_marked()
        if not of_own_edges:
            self._waits[nodes] = True
            nodes = np.flatnonzero(self._waits).astype(np.int32)
            self._waits[nodes] = False
        due = []
        for start in range(0, nodes.size, _AT_ONCE):
            some = nodes[start : start + _AT_ONCE]
            is_due = self._have_changed(some)
            if of_own_edges:
                self._waits[some[~is_due]] = True
            else:
                is_due[~is_due] = self._have_moved(some[~is_due])
            due.append(some[is_due])
            self.store.put(self._shard, due[-1], self._own(due[-1]))
        taken = np.concatenate([np.zeros(0, np.int32), *due])
        self._tells[taken] = True
        self._waits[taken] = False
        self._unconfirmed.append(taken)
        if len(self._unconfirmed) > _MOST_UNCONFIRMED:
            self._unconfirmed = [np.unique(np.concatenate(self._unconfirmed))]
        return taken

    def confirm(self) -> None:
        """Everything that was taken so far is published."""
        self._unconfirmed.clear()

    def _have_changed(self, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether degree, number of edges or counts are others than told: (nodes,)."""
        degree, edges, counts = self.store.told_numbers(self._shard, nodes, self._graph.landmark_ms)
        adjacency = self._graph.adjacency
        changed = np.abs(adjacency.degree[nodes] - degree) > _ROUNDING * degree
        changed |= adjacency.lists.length[nodes] != edges
        # The latest event goes along: it is that of all shards, and alone would be told back and forth.
        changed |= (self._own_counts(nodes) != counts)[:, np.arange(COUNTS) != LAST_EVENT_MS].any(axis=1)
        return np.asarray(changed)

    def _have_moved(self, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether a sum is further than its limit from what was told: (nodes,)."""
        apart = self._own(nodes).sums - self.told(nodes).sums
        return np.asarray((np.linalg.norm(apart, axis=2) > self.limits(nodes)).any(axis=1))

    def tells(self, node: int) -> bool:
        """Whether `told` gives this process's own words of an item."""
        return bool(self._tells[node])

    def stop_telling(self) -> None:
        """Another process may tell from now on. What it has not told since is owed once this one tells again."""
        self._tells[:] = False
        nodes = np.unique(np.concatenate([np.zeros(0, np.int32), *self._unconfirmed]))
        nodes = nodes[(self._propagation.tables.dirty[nodes] & IS_ITEM) != 0]
        self._unconfirmed.clear()
        self.store.remove(self._shard, nodes)
        self.note(nodes)

    def correct(self, nodes: NDArray[np.int32], parts: Parts) -> None:
        """Takes in records of this very shard, each node once: what it has told of items that this process does not
        tell itself.
        """
        news = ~self._tells[nodes]
        self.store.put(self._shard, nodes[news], parts.rows(news))
        self.note(nodes[news])

    def restore(self, told: Sequence[Told]) -> None:
        """Takes over what was told up to a snapshot, by whichever shard. The sums are to be recomputed afterwards."""
        for one in told:
            self.store.put(*one)
        self._add_up(self._items())

    def told(self, nodes: NDArray[np.int32]) -> Parts:
        """This shard's parts as they were last taken."""
        return self.store.told(self._shard, nodes, self._graph.landmark_ms)

    def receive(self, told: Sequence[Told]) -> None:
        """Takes in what other shards have told, one after the other; all numbers are finite. Parts of many shards at
        once take little more time than those of one.
        """
        nodes = np.unique(np.concatenate([np.zeros(0, np.int32), *(one.nodes for one in told)]))
        if nodes.size == 0:
            return
        for one in told:
            self.store.put(*one)
        if self._half_life_ms and self._graph.landmark_ms == UNKNOWN_LANDMARK:
            self._graph.landmark_ms = self.store.latest_landmark_ms()
        if not self.follow_landmark():
            self._add_up(nodes)

    def follow_landmark(self) -> bool:
        """Adds all parts up again if the graph's landmark was moved: what `Propagation.rescale` has made of them is
        wrong where a part was too far from it to be told apart from nothing, or from infinity. Returns whether it did.
        To be called before edges are applied.
        """
        if self._landmark_ms == self._graph.landmark_ms:
            return False
        self._landmark_ms = self._graph.landmark_ms
        if not self._others:
            return False
        items = self._items()
        if not self._graph.edge_count:
            self._propagation.tables.head[items, PEAK] = 0.0
        self._add_up(items)
        return True

    def others_counts(self, nodes: NDArray[np.int32]) -> NDArray[np.int64]:
        """What the other shards have counted: (nodes, COUNTS)."""
        return self.store.counts_of(self._others, nodes)

    def others_edges(self, nodes: NDArray[np.int32]) -> NDArray[np.int64]:
        """How many edges items have in other shards: (nodes,)."""
        head = self._propagation.tables.head
        return np.asarray(head[nodes, RHO + 2 * self._propagation.layers + 1].astype(np.int64))

    def note(self, nodes: NDArray[np.int32]) -> None:
        """Notes items, each once, whose part may have to be told."""
        tables = self._propagation.tables
        new = nodes[(tables.dirty[nodes] & (IS_OWED | IS_ITEM)) == IS_ITEM]
        count = int(tables.moved_count[1])
        tables.queue[count : count + new.size, OWED_QUEUE] = new
        tables.moved_count[1] = count + new.size
        tables.dirty[new] |= np.uint8(IS_OWED)

    def _items(self) -> NDArray[np.int32]:
        return np.flatnonzero(self._propagation.tables.dirty & IS_ITEM).astype(np.int32)

    def _own(self, nodes: NDArray[np.int32]) -> Parts:
        """This shard's parts as they are now."""
        layers, tables, adjacency = self._propagation.layers, self._propagation.tables, self._graph.adjacency
        return Parts(
            degree=adjacency.degree[nodes],
            edges=adjacency.lists.length[nodes].astype(np.int64),
            landmark_ms=np.full(nodes.size, self._graph.landmark_ms),
            sums=tables.sums[nodes] - tables.pushed[nodes, layers:],
            counts=self._own_counts(nodes),
        )

    def _add_up(self, nodes: NDArray[np.int32]) -> None:
        """Replaces what the other shards' parts of these items add up to."""
        tables, layers = self._propagation.tables, self._propagation.layers
        own = self._own(nodes).sums
        parts = [self.store.told(shard, nodes, self._graph.landmark_ms) for shard in self._others]
        whole = np.sum([part.sums for part in parts], axis=0, dtype=np.float32)
        tables.pushed[nodes, layers:] = whole
        tables.sums[nodes] = own + whole
        column = RHO + 2 * layers
        tables.head[nodes, column] = np.sum([part.degree for part in parts], axis=0)
        tables.head[nodes, column + 1] = np.sum([part.edges for part in parts], axis=0)
        self.note(nodes)
        self._propagation.refresh(nodes)

    def _take_marked(self) -> NDArray[np.int32]:
        """The items noted since the last call."""
        tables = self._propagation.tables
        nodes = tables.queue[: tables.moved_count[1], OWED_QUEUE].copy()
        tables.moved_count[1] = 0
        tables.dirty[nodes] &= ~np.uint8(IS_OWED)
        return np.asarray(nodes[(tables.dirty[nodes] & IS_ITEM) != 0])
