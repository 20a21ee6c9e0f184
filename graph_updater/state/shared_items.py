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
    is_foreign: bool = False
    """Whether the part's sums are of another space; its counts are of none."""


class SharedItems:
    """The items of one of several shards.

    Args:
        nodes: the tables.
        sharing: of them.
        space: of the embeddings.

    Attributes:
        shard: whose they are.
        has_told: whether any updater of this shard has told anything, as far as it was read.
        is_telling: whether this process tells, and not another one of this shard.
    """

    def __init__(self, nodes: Nodes, sharing: Sharing, space: str) -> None:
        self._nodes = nodes
        self._sharing = sharing
        self._space = space
        self._left: set[str] = set()
        """Items that this shard has released and that the topic still has its part of, as far as known."""
        self._ended: set[str] = set()
        """Those of them that were taken to be told and are not confirmed as published."""
        self.shard = nodes.shard
        self.has_told = False
        self.is_telling = False

    def note(self, items: NDArray[np.int32]) -> None:
        """Notes items, perhaps some twice, whose counts have changed."""
        self._sharing.note(np.unique(items))

    def forget(self, item_ids: Iterable[str]) -> None:
        """Notes items that this shard has released: it has no part of them any longer."""
        self._left.update(item_ids)

    def take_owed(self, *, of_own_edges: bool = False) -> list[str]:
        """Items whose part is to be told, or that it is over; from now on `parts` gives it. See `Sharing.take_owed`."""
        self.is_telling = True
        nodes = self._sharing.take_owed(of_own_edges=of_own_edges)
        self._nodes.mark(nodes)
        names = self._nodes.names_of(nodes)
        left = self._left.difference(names)
        self._ended |= left
        self._left.clear()
        return [*names, *left]

    def confirm(self) -> None:
        """Everything that was taken so far is published."""
        self._sharing.confirm()
        self._ended.clear()

    def stop_telling(self) -> None:
        """Another updater of this shard may tell from now on."""
        self.is_telling = False
        self._sharing.stop_telling()
        self._left |= self._ended
        self._ended.clear()

    def parts(self, item_ids: Sequence[str]) -> dict[str, ItemPart | None]:
        """This shard's parts as they were last taken; None for an item of which it has none any longer, and nothing at
        all for one that another updater of this shard may have told of since.
        """
        known, shard = self._nodes.ids.items, self.shard
        there = [(name, known[name]) for name in item_ids if name in known and self._sharing.tells(known[name])]
        told = self._sharing.told(np.array([node for _, node in there], np.int32))
        sums, size = told.sums.astype(_NUMBER).tobytes(), told.sums[0].size * _NUMBER.itemsize if there else 0
        found: dict[str, ItemPart | None] = {
            name: None for name in item_ids if name not in known or name in self._ended
        }
        columns = (told.there, told.degree, told.edges, told.landmark_ms, told.counts)
        for row, ((name, _), is_there, degree, edges, landmark_ms, counts) in enumerate(
            zip(there, *(column.tolist() for column in columns), strict=True)
        ):
            found[name] = (
                ItemPart(
                    item_id=name,
                    shard=shard.number,
                    shards=shard.shards,
                    space=self._space,
                    degree=degree,
                    edges=edges,
                    landmark_ms=landmark_ms,
                    sums=sums[row * size : (row + 1) * size],
                    impressions=max(0, counts[IMPRESSIONS]),
                    positives=max(0, counts[POSITIVES]),
                    grades=max(0, counts[GRADES]),
                    last_event_time_ms=counts[LAST_EVENT_MS],
                    mentioned=bool(counts[IS_MENTIONED]),
                )
                if is_there
                else None
            )
        return found

    def receive(self, records: Sequence[PartRecord]) -> NDArray[np.int32]:
        """Takes in what shards have told, in the order of each key; this one's own, too.

        Returns:
            Items whose counts have changed by it.
        """
        last = {(record.shard, record.item_id): record for record in records}
        known, own_number = self._nodes.ids.items, self.shard.number
        if not self.is_telling:  # else these are this process's own words, and it may have to say them again
            self._left -= {name for (shard, name), one in last.items() if shard == own_number and one.part is None}
        by_shard: dict[int, list[PartRecord]] = {}
        for record in last.values():
            is_late = record.shard == own_number and (record.item_id in self._left or record.item_id in self._ended)
            if record.item_id in known or not (record.part is None or is_late):
                by_shard.setdefault(record.shard, []).append(record)
        own = by_shard.pop(own_number, None)
        if own is not None:
            told = self._told(own_number, own)
            self._sharing.correct(told.nodes, told.parts)
            self.has_told = True
            self._nodes.mark(told.nodes)
        others = [self._told(shard, found) for shard, found in by_shard.items()]
        return self._receive(others) if others else np.zeros(0, np.int32)

    def adopt_own_counts(self, *, are_published: bool) -> None:
        """After the replay of a rebuild: what this shard has told that it had counted is counted, though the records
        are gone.

        Args:
            are_published: whether all records that were replayed had been published. Then exactly what was told with
                them is counted: nothing by a shard that has never told anything. It is new, and its users were another
                one's when their records were counted.
        """
        items = np.fromiter(self._nodes.ids.items.values(), np.int32)
        told, own = self._sharing.told(items).counts, self._nodes.own_counts(items)
        missing = told - own if are_published else np.maximum(told - own, 0)
        self._count(items, missing[:, :LAST_EVENT_MS], told)

    def _receive(self, others: Sequence[Told]) -> NDArray[np.int32]:
        nodes = np.unique(np.concatenate([one.nodes for one in others]))
        before = self._sharing.others_counts(nodes)
        self._sharing.receive(others)
        after = self._sharing.others_counts(nodes)
        self._nodes.mark(nodes)
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
        """Records of distinct items as columns; items that are not known yet get a row. Of a part of another space the
        counts are taken.
        """
        nodes, _ = self._nodes.items([record.item_id for record in records])
        foreign = np.array([row for row, record in enumerate(records) if record.is_foreign], np.int64)
        layers, dim = self._nodes.propagation.layers, self._nodes.dim
        rows = [row for row, record in enumerate(records) if record.part is not None]
        there = [record.part for record in records if record.part is not None]
        columns = Parts(
            degree=np.zeros(nodes.size),
            edges=np.zeros(nodes.size, np.int64),
            landmark_ms=np.zeros(nodes.size, np.int64),
            sums=np.zeros((nodes.size, layers, dim), np.float32),
            counts=np.zeros((nodes.size, COUNTS), np.int64),
        )
        ours = [row for row in rows if not records[row].is_foreign]
        of_ours = [record.part for record in records if record.part is not None and not record.is_foreign]
        columns.degree[ours] = [part.degree for part in of_ours]
        columns.edges[ours] = [part.edges for part in of_ours]
        columns.landmark_ms[ours] = [part.landmark_ms for part in of_ours]
        columns.sums[ours] = np.frombuffer(b"".join(part.sums for part in of_ours), _NUMBER).reshape(-1, layers, dim)
        if foreign.size and shard != self.shard.number:  # what it has told in our space stays in force
            kept = self._sharing.store.as_is(shard, nodes[foreign])
            columns.degree[foreign], columns.edges[foreign] = kept.degree, kept.edges
            columns.landmark_ms[foreign], columns.sums[foreign] = kept.landmark_ms, kept.sums
        columns.counts[rows] = np.array(
            [
                (part.impressions, part.positives, part.grades, part.last_event_time_ms, part.mentioned)
                for part in there
            ],
            np.int64,
        ).reshape(-1, COUNTS)
        return Told(shard, nodes, columns)
