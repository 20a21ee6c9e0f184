"""What this shard tells the others of items and hears from them, by item id. The mathematics: `graph.sharing`.

Counts go with the parts: `NodeFacts` holds those of all shards, and this shard's own are what remains without the
others'. So whoever publishes an item's state takes them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.parts import COUNTS, GRADES, IMPRESSIONS, IS_MENTIONED, LAST_EVENT_MS, POSITIVES, Parts
from graph_updater.graph.sharing import Sharing, Told
from graph_updater.state.nodes import Nodes
from schemas.messages import ItemPart

_NUMBER: Final = np.dtype("<f4")


class PartRecord(NamedTuple):
    """What a shard has told of an item: its part, or None when it has none any longer."""

    shard: int
    item_id: str
    part: ItemPart | None


class SharedItems:
    """The items of one of several shards.

    Args:
        nodes: the tables.
        sharing: of them.
        space: of the embeddings.

    Attributes:
        shard: whose they are.
        told: parts taken to be told so far.
        received: parts of other shards taken in so far.
        has_told: whether any updater of this shard has told anything, as far as it was read.
    """

    def __init__(self, nodes: Nodes, sharing: Sharing, space: str) -> None:
        self._nodes = nodes
        self._sharing = sharing
        self._space = space
        self._left: set[str] = set()
        self.shard = nodes.shard
        self.told = 0
        self.received = 0
        self.has_told = False

    def note(self, items: NDArray[np.int32]) -> None:
        """Notes items, perhaps some twice, whose counts have changed."""
        self._sharing.note(np.unique(items))

    def forget(self, item_ids: Iterable[str]) -> None:
        """Notes items that this shard has released: it has no part of them any longer."""
        self._left.update(item_ids)

    def take_owed(self, *, of_own_edges: bool = False) -> list[str]:
        """Items whose part is to be told, or that it is over; from now on `parts` gives it. See `Sharing.take_owed`."""
        nodes = self._sharing.take_owed(of_own_edges=of_own_edges)
        self._nodes.mark(nodes)
        known = self._nodes.ids.items
        left = [name for name in self._left if name not in known]
        self._left.clear()
        self.told += nodes.size + len(left)
        return [*self._nodes.names_of(nodes), *left]

    def stop_telling(self) -> None:
        """Another updater of this shard may tell from now on."""
        self._sharing.stop_telling()

    def parts(self, item_ids: Sequence[str]) -> dict[str, ItemPart | None]:
        """This shard's parts as they were last taken; None for an item of which it has none any longer, and nothing at
        all for one that another updater of this shard may have told of since.
        """
        known, shard = self._nodes.ids.items, self.shard
        there = [(name, known[name]) for name in item_ids if name in known and self._sharing.tells(known[name])]
        told = self._sharing.told(np.array([node for _, node in there], np.int32))
        sums, is_there = told.sums.astype(_NUMBER), told.there
        found: dict[str, ItemPart | None] = {name: None for name in item_ids if name not in known}
        for row, (name, _) in enumerate(there):
            counts = told.counts[row].tolist()
            found[name] = (
                ItemPart(
                    item_id=name,
                    shard=shard.number,
                    shards=shard.shards,
                    space=self._space,
                    degree=float(told.degree[row]),
                    edges=int(told.edges[row]),
                    landmark_ms=int(told.landmark_ms[row]),
                    sums=sums[row].tobytes(),
                    impressions=max(0, counts[IMPRESSIONS]),
                    positives=max(0, counts[POSITIVES]),
                    grades=max(0, counts[GRADES]),
                    last_event_time_ms=counts[LAST_EVENT_MS],
                    mentioned=bool(counts[IS_MENTIONED]),
                )
                if is_there[row]
                else None
            )
        return found

    def receive(self, records: Sequence[PartRecord]) -> NDArray[np.int32]:
        """Takes in what shards have told, in the order of each key; this one's own, too.

        Returns:
            Items whose counts have changed by it.
        """
        last = {(record.shard, record.item_id): record for record in records}
        by_shard: dict[int, list[PartRecord]] = {}
        for record in last.values():
            if record.part is not None or record.item_id in self._nodes.ids.items:
                by_shard.setdefault(record.shard, []).append(record)
        own = by_shard.pop(self.shard.number, None)
        if own is not None:
            told = self._told(self.shard.number, own)
            self._sharing.correct(told.nodes, told.parts)
            self.has_told = True
            self._nodes.mark(told.nodes)
            self._left.difference_update(record.item_id for record in own if record.part is None)
        others = [self._told(shard, found) for shard, found in by_shard.items()]
        return self._receive(others) if others else np.zeros(0, np.int32)

    def adopt_own_counts(self, *, are_published: bool) -> None:
        """After the replay of a rebuild: what this shard has told that it had counted is counted, though the records
        are gone.

        Args:
            are_published: whether the published states count the records that were replayed. Then a shard that has
                never told anything is new, its users were another one's, and it counts from now on.
        """
        items = np.fromiter(self._nodes.ids.items.values(), np.int32)
        told, own = self._sharing.told(items).counts, self._nodes.own_counts(items)
        missing = -own if are_published and not self.has_told else np.maximum(told - own, 0)
        self._count(items, missing[:, :LAST_EVENT_MS], told)

    def _receive(self, others: Sequence[Told]) -> NDArray[np.int32]:
        nodes = np.unique(np.concatenate([one.nodes for one in others]))
        before = self._sharing.others_counts(nodes)
        self._sharing.receive(others)
        after = self._sharing.others_counts(nodes)
        self._nodes.mark(nodes)
        self.received += sum(one.nodes.size for one in others)
        return self._count(nodes, (after - before)[:, :LAST_EVENT_MS], after)

    def _count(self, nodes: NDArray[np.int32], more: NDArray[np.int64], latest: NDArray[np.int64]) -> NDArray[np.int32]:
        """Adds to the counts of distinct nodes. Returns those that have changed."""
        facts = self._nodes.facts
        for column, counted in enumerate((facts.impressions, facts.positives, facts.grades)):
            counted[nodes] += more[:, column]
        np.maximum.at(facts.last_event_ms, nodes, latest[:, LAST_EVENT_MS])
        changed = np.asarray(nodes[more.any(axis=1)])
        facts.changed[changed] = True
        return changed

    def _told(self, shard: int, records: Sequence[PartRecord]) -> Told:
        """Records of distinct items as columns; items that are not known yet get a row."""
        nodes, _ = self._nodes.items([record.item_id for record in records])
        layers, dim = self._nodes.propagation.layers, self._nodes.dim
        parts = [record.part for record in records]
        rows = [row for row, part in enumerate(parts) if part is not None]
        there = [part for part in parts if part is not None]
        columns = Parts(
            degree=np.zeros(nodes.size),
            edges=np.zeros(nodes.size, np.int64),
            landmark_ms=np.zeros(nodes.size, np.int64),
            sums=np.zeros((nodes.size, layers, dim), np.float32),
            counts=np.zeros((nodes.size, COUNTS), np.int64),
        )
        columns.degree[rows] = [part.degree for part in there]
        columns.edges[rows] = [part.edges for part in there]
        columns.landmark_ms[rows] = [part.landmark_ms for part in there]
        columns.sums[rows] = np.frombuffer(b"".join(part.sums for part in there), _NUMBER).reshape(-1, layers, dim)
        columns.counts[rows] = np.array(
            [
                (part.impressions, part.positives, part.grades, part.last_event_time_ms, part.mentioned)
                for part in there
            ],
            np.int64,
        ).reshape(-1, COUNTS)
        return Told(shard, nodes, columns)
