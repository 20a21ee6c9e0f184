"""The state as a set of arrays, copied node by node between micro-batches so that reading never waits for it.

Copied are ids, facts, x⁽⁰⁾, edges (once, from the user's side) and histories. Sums and pushed values are left out: they
follow from x⁽⁰⁾ and the edges. `Propagation.recompute` restores them quickly and exactly, and the snapshot stays small.

The copy:
1. `UpdaterState.start_snapshot` begins it. From now on every changed node is marked (`Nodes.mark`).
2. Each `step`, between two micro-batches, copies the next few thousand nodes.
3. After the last step `finish` copies the marked nodes once more. The result is the state at this moment: its offsets
   must be taken now.
4. `StateCopy.merge` merges the parts. It uses the copy alone, so it may run in another thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.base_embeddings import BaseEmbeddings
from graph_updater.graph.bipartite import Edges
from graph_updater.graph.config import GraphConfig
from graph_updater.graph.parts import Parts
from graph_updater.graph.shard import WHOLE, Shard
from graph_updater.graph.sharing import Sharing, Told
from graph_updater.state.histories import Entries
from graph_updater.state.identities import ITEM, USER
from graph_updater.state.nodes import Nodes
from graph_updater.state.published import PublishedStates
from graph_updater.state.snapshot_checks import (
    SNAPSHOT_VERSION,
    StateMetadata,
    check_landmark,
    check_parts,
    checked_metadata,
    checked_names,
    with_grades,
)

_EDGES: Final = "edge"
_HISTORY: Final = "history"
_PARTS: Final = "part"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Part:
    """Copies of some nodes: columns with a row per node, and lists, flat, with their lengths as one of the columns."""

    nodes: NDArray[np.int32]
    names: list[str]
    rows: Arrays
    lists: dict[str, Arrays]


@dataclass(frozen=True)
class StateCopy:
    """The state at one moment, in parts. Where a node is in several parts, the last one counts."""

    parts: list[Part]
    metadata: dict[str, Any]

    def merge(self) -> tuple[Arrays, dict[str, Any]]:
        """All nodes in order, as arrays by name, and the metadata (plain JSON types)."""
        nodes = np.concatenate([part.nodes for part in self.parts])
        last = np.zeros(int(nodes.max(initial=-1)) + 1, np.int64)
        np.maximum.at(last, nodes, np.arange(nodes.size))
        names = [name for part in self.parts for name in part.names]
        blob = msgspec.msgpack.encode([names[row] for row in last.tolist()])
        arrays: Arrays = {"names": np.frombuffer(blob, np.uint8)}
        rows = {name: np.concatenate([part.rows[name] for part in self.parts]) for name in self.parts[0].rows}
        for kind in self.parts[0].lists:
            cells = _picked(rows[f"{kind}_count"], last)
            for name in self.parts[0].lists[kind]:
                arrays[f"{kind}_{name}"] = np.concatenate([part.lists[kind][name] for part in self.parts])[cells]
        arrays.update({name: column[last] for name, column in rows.items()})
        return arrays, self.metadata


class SnapshotCopy:
    """A copy in progress; see the steps in the module's docstring.

    Args:
        nodes: the tables to copy.
        alphas: the layer weights, for the metadata.
        published: knows who left and still needs a tombstone.
    """

    def __init__(self, nodes: Nodes, alphas: tuple[float, ...], published: PublishedStates) -> None:
        self._source = nodes
        self._alphas = alphas
        self._published = published
        self._parts: list[Part] = []
        self._walked = 0
        nodes.marked = []

    def step(self, count: int = 4096) -> bool:
        """Copies the next `count` nodes. Returns whether all have been copied."""
        end = min(len(self._source), self._walked + count)
        self._parts.append(_copy(self._source, np.arange(self._walked, end, dtype=np.int32)))
        self._walked = end
        return end == len(self._source)

    def finish(self) -> StateCopy:
        """Copies the rest, and again what has changed since it was copied."""
        while not self.step():
            pass
        marked, self._source.marked = self._source.marked, None
        if marked:
            self._parts.append(_copy(self._source, np.unique(np.concatenate(marked))))
        graph = self._source.graph
        metadata = {
            "version": SNAPSHOT_VERSION,
            "dim": self._source.dim,
            "alphas": list(self._alphas),
            "landmark_ms": graph.landmark_ms,
            "oldest_slice": graph.oldest_slice,
            "expired_users": list(self._published.expired_users),
            "expired_items": list(self._published.expired_items),
        }
        return StateCopy(self._parts, metadata)


def restore_nodes(
    config: GraphConfig,
    base: BaseEmbeddings,
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
    shard: Shard = WHOLE,
) -> Nodes:
    """The tables from a snapshot's arrays, but for the sums: `Propagation.recompute` makes them.

    Raises:
        IncompatibleSnapshot: if it was made for another model or by another version, or cannot be a copy of a state.
    """
    said = checked_metadata(base, metadata)
    arrays = with_grades(said, arrays)
    names = checked_names(said, arrays)
    nodes = Nodes(config, base.dim, base.alphas, base.history_length, shard)
    nodes.ids.restore(names, arrays["kind"])
    nodes.make_room()
    count = len(nodes)
    for name, column in nodes.facts.columns().items():
        column[:count] = arrays[name]
    owner = np.repeat(np.arange(count, dtype=np.int32), arrays["edge_count"])
    edges = Edges(owner, *(arrays[f"{_EDGES}_{name}"] for name in ("neighbour", "weight", "time")))
    check_landmark(said, arrays["edge_time"], config)
    nodes.graph.restore(edges, said.landmark_ms, said.oldest_slice)
    entries = Entries(*(arrays[f"{_HISTORY}_{name}"] for name in Entries._fields))
    nodes.histories.restore(*_newest(arrays["history_count"], entries, base.history_length))
    nodes.propagation.tables.base[:count] = arrays["base"]
    if nodes.sharing is not None:
        _restore_parts(nodes, nodes.sharing, said, arrays)
    return nodes


def in_space_of(
    base: BaseEmbeddings, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
) -> tuple[Arrays, dict[str, Any]]:
    """A snapshot's arrays and metadata as if it had been made with these base embeddings, but that no node has an x⁽⁰⁾
    and nothing is published; and of the parts that shards have told there are the counts alone. Malformed ones stay
    malformed.
    """
    blank = {
        name: np.zeros((len(array), base.dim), array.dtype)
        for name, array in arrays.items()
        if name in ("base", "published") and array.ndim
    }
    return {**arrays, **blank, **_counts_alone(base, arrays)}, {
        **metadata,
        "dim": base.dim,
        "alphas": list(base.alphas),
    }


def _counts_alone(base: BaseEmbeddings, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Parts without what depends on the space; they are told again."""
    blank = {name: np.zeros_like(arrays[name]) for name in (f"{_PARTS}_degree", f"{_PARTS}_edges") if name in arrays}
    sums = arrays.get(f"{_PARTS}_sums")
    if sums is not None and sums.ndim:
        blank[f"{_PARTS}_sums"] = np.zeros((len(sums), len(base.alphas) - 1, base.dim), sums.dtype)
    return blank


def _newest(lengths: NDArray[np.int64], entries: Entries, most: int) -> tuple[NDArray[np.int64], Entries]:
    """The last `most` entries of each history: the bundle may ask for fewer than the one before."""
    if lengths.max(initial=0) <= most:
        return lengths, entries
    place = np.arange(entries.item.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = place >= np.repeat(lengths - most, lengths)
    return np.minimum(lengths, most), Entries._make(column[kept] for column in entries)


def _copy(source: Nodes, nodes: NDArray[np.int32]) -> Part:
    """Copies these nodes."""
    facts = {name: column[nodes] for name, column in source.facts.columns().items()}
    owners = nodes[facts["kind"] == USER]
    edge_count, history_count = np.zeros(nodes.size, np.int64), np.zeros(nodes.size, np.int64)
    edge_count[facts["kind"] == USER] = source.graph.adjacency.lists.length[owners]
    history_count[facts["kind"] == USER] = source.histories.lists.length[owners]
    edges = source.graph.edges_of(owners)
    parts, part_count = _parts(source, nodes)
    return Part(
        nodes=nodes,
        names=source.names_of(nodes),
        rows={
            **facts,
            "base": source.propagation.tables.base[nodes],
            f"{_EDGES}_count": edge_count,
            f"{_HISTORY}_count": history_count,
            **part_count,
        },
        lists={
            _EDGES: {"neighbour": edges.neighbour, "weight": edges.weight, "time": edges.time},
            _HISTORY: source.histories.entries_of(owners)._asdict(),
            **parts,
        },
    )


def _parts(source: Nodes, nodes: NDArray[np.int32]) -> tuple[dict[str, Arrays], Arrays]:
    """The parts of these nodes that each shard has told, and how many there are of each; nothing if there is one."""
    if source.sharing is None:
        return {}, {}
    items = np.flatnonzero(source.facts.kind[nodes] == ITEM)
    told = [source.sharing.store.told_as_is(shard, nodes[items]) for shard in range(source.shard.shards)]
    rows = np.concatenate([items[there] for there, _ in told])
    order = np.argsort(rows, kind="stable")
    shards = np.repeat(np.arange(source.shard.shards, dtype=np.int16), [there.sum() for there, _ in told])
    columns = zip(*(parts for _, parts in told), strict=True)
    arrays = {name: np.concatenate(column)[order] for name, column in zip(Parts._fields, columns, strict=True)}
    return {_PARTS: {"shard": shards[order], **arrays}}, {f"{_PARTS}_count": np.bincount(rows, minlength=nodes.size)}


def _restore_parts(nodes: Nodes, sharing: Sharing, said: StateMetadata, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Fills the store of parts; the sums of the nodes are still to be made."""
    count = len(nodes)
    sharing.add_items(np.flatnonzero(nodes.facts.kind[:count] == ITEM).astype(np.int32))
    check_parts(said, arrays, nodes.shard.shards)
    owner = np.repeat(np.arange(count, dtype=np.int32), arrays[f"{_PARTS}_count"])
    parts = Parts(*(arrays[f"{_PARTS}_{name}"] for name in Parts._fields))
    shards = arrays[f"{_PARTS}_shard"]
    sharing.restore(
        [Told(shard, owner[shards == shard], parts.rows(shards == shard)) for shard in range(nodes.shard.shards)]
    )


def _picked(lengths: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cells of the lists of `rows`, list after list, if the lists of all rows are stored one after the other."""
    starts = np.cumsum(lengths) - lengths
    chosen = lengths[rows]
    before = np.cumsum(chosen) - chosen
    cells: NDArray[np.int64] = np.arange(chosen.sum()) + np.repeat(starts[rows] - before, chosen)
    return cells
