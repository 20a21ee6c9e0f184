"""Checks a snapshot's arrays before a state is made of them: whatever passes can be continued without an error.

The hash of a snapshot only shows that it is as it was written; these checks show that it can have been written by us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.base_embeddings import BaseEmbeddings
from graph_updater.graph.bipartite import MAX_HALF_LIVES
from graph_updater.graph.config import GraphConfig
from graph_updater.graph.parts import COUNTS, LARGEST_SUM
from graph_updater.state.histories import POSITIVE, WITHDRAWN
from graph_updater.state.identities import ITEM, NOBODY, USER
from graph_updater.state.stream_time import is_stream_time
from schemas.messages import FULL_GRADE

SNAPSHOT_VERSION: Final = 2
"""2 added the grades of interactions."""
EARLIER_VERSIONS: Final = (1,)
"""Those that are read too."""
Arrays = Mapping[str, NDArray[Any]]
_FLOATS: Final = ("float16", "float32")
_LATEST_MS: Final = 253_402_300_799_999
_FURTHEST_HALF_LIVES: Final = 4 * MAX_HALF_LIVES


class IncompatibleSnapshot(ValueError):
    """The snapshot does not fit this updater; the text says why."""


class StateMetadata(msgspec.Struct):
    """What a copy of the state holds beside its arrays."""

    version: int
    dim: int
    alphas: list[float]
    landmark_ms: int
    oldest_slice: int
    expired_users: list[str]
    expired_items: list[str]
    stream_time: list[int] = []
    waiting: list[tuple[int, int, int, int, float]] = []


class _Column(NamedTuple):
    dtypes: tuple[str, ...]
    shape: tuple[int, ...]
    least: float | None = None
    most: float | None = None


def checked_metadata(base: BaseEmbeddings, metadata: Mapping[str, Any]) -> StateMetadata:
    """The metadata, if they are of this version and of a model of this size.

    Raises:
        IncompatibleSnapshot: if not.
    """
    version = metadata.get("version")
    if version not in (*EARLIER_VERSIONS, SNAPSHOT_VERSION):
        raise IncompatibleSnapshot(
            f"the snapshot has version {version}; this updater reads up to version {SNAPSHOT_VERSION}"
        )
    try:
        checked = msgspec.convert(metadata, StateMetadata)
    except msgspec.ValidationError as error:
        raise IncompatibleSnapshot(f"its metadata are malformed: {error}") from error
    if checked.dim != base.dim:
        raise IncompatibleSnapshot(
            f"the snapshot holds embeddings of {checked.dim} numbers, the model bundle of {base.dim}"
        )
    if not (-1 <= checked.landmark_ms <= 2 * _LATEST_MS and -_LATEST_MS <= checked.oldest_slice <= _LATEST_MS):
        raise IncompatibleSnapshot("its times are out of range")
    _require(is_stream_time(checked.stream_time), "its stream time is malformed")
    return checked


def with_grades(said: StateMetadata, arrays: Arrays) -> Arrays:
    """The arrays of a snapshot; one of version 1 gets the grades that its outcomes imply. Malformed stays malformed."""
    if said.version > 1 or not {"positives", "history_judgement"} <= arrays.keys():
        return arrays
    return {
        **arrays,
        "grades": arrays["positives"] * FULL_GRADE,
        "history_grade": ((arrays["history_judgement"] == POSITIVE) * FULL_GRADE).astype(np.uint8),
    }


def checked_names(said: StateMetadata, arrays: Arrays) -> list[str]:
    """The nodes' names, after all arrays have been checked.

    Raises:
        IncompatibleSnapshot: if one is missing, has another type or shape, or holds numbers that no state has.
    """
    missing = sorted({"names", "kind"} - arrays.keys())
    _require(not missing, f"the snapshot lacks {', '.join(missing)}")
    kind = arrays["kind"]
    _require(kind.ndim == 1, "kind has another shape")
    nodes = kind.size
    _check_columns(arrays, _node_columns(nodes, said.dim))
    edges, entries = int(arrays["edge_count"].sum()), int(arrays["history_count"].sum())
    _check_columns(arrays, _list_columns(nodes, edges, entries))
    names = _names(arrays, nodes)
    _check_lists(arrays, kind)
    _check_waiting(said.waiting, kind)
    return names


def check_parts(said: StateMetadata, arrays: Arrays, shards: int) -> None:
    """Checks what shards have told of items, after everything else has been checked.

    Raises:
        IncompatibleSnapshot: if the state of one of so many shards cannot hold it.
    """
    kind = arrays["kind"]
    _check_columns(arrays, {"part_count": _Column(("int64",), (kind.size,), 0, shards)})
    counts = arrays["part_count"]
    parts, layers = int(counts.sum()), len(said.alphas) - 1
    _check_columns(
        arrays,
        {
            "part_shard": _Column(("int16",), (parts,), 0, shards - 1),
            "part_degree": _Column(("float64",), (parts,), 0.0, np.finfo(np.float64).max),
            "part_edges": _Column(("int64",), (parts,), 0, 2**31 - 1),
            "part_landmark_ms": _Column(("int64",), (parts,), -1, 2 * _LATEST_MS),
            "part_sums": _Column(("float32",), (parts, layers, said.dim), -LARGEST_SUM, LARGEST_SUM),
            "part_counts": _Column(("int64",), (parts, COUNTS), 0, 2**62),
        },
    )
    _require(not counts[kind != ITEM].any(), "part: a list that is no item's")
    owner = np.repeat(np.arange(kind.size), counts)
    pairs = owner * shards + arrays["part_shard"]
    _require(np.unique(pairs).size == pairs.size, "an item has two parts of one shard")
    _require(bool(((arrays["part_degree"] > 0) == (arrays["part_edges"] > 0)).all()), "a part has edges without weight")


def check_landmark(said: StateMetadata, edge_time: NDArray[np.int64], config: GraphConfig) -> None:
    """With decay, weights are numbers only near the time that they are relative to.

    Raises:
        IncompatibleSnapshot: if edges lie further from it than any that are kept.
    """
    if config.half_life_ms and edge_time.size:
        furthest_ms = max(abs(int(edge_time.max()) - said.landmark_ms), abs(int(edge_time.min()) - said.landmark_ms))
        _require(
            furthest_ms <= _FURTHEST_HALF_LIVES * config.half_life_ms,
            "its edges lie too many half-lives from the time that their weights are relative to",
        )


def _node_columns(nodes: int, dim: int) -> dict[str, _Column]:
    whole = _Column(("int64",), (nodes,), 0, 2**62)
    length = _Column(("int64",), (nodes,), 0, 2**30)
    time = _Column(("int64",), (nodes,), 0, _LATEST_MS)
    return {
        "kind": _Column(("uint8",), (nodes,), NOBODY, ITEM),
        "impressions": whole,
        "positives": whole,
        "grades": whole,
        "version": whole,
        "last_event_ms": time,
        "changed": _Column(("bool",), (nodes,)),
        "in_catalogue": _Column(("bool",), (nodes,)),
        "published": _Column(_FLOATS, (nodes, dim), -np.inf, np.inf),
        "base": _Column(("float32",), (nodes, dim), -np.inf, np.inf),
        "edge_count": length,
        "history_count": length,
    }


def _list_columns(nodes: int, edges: int, entries: int) -> dict[str, _Column]:
    return {
        "edge_neighbour": _Column(("int32",), (edges,), 0, nodes - 1),
        "edge_weight": _Column(("float32",), (edges,), 0.0, np.inf),
        "edge_time": _Column(("int64",), (edges,), 0, _LATEST_MS),
        "history_item": _Column(("int32",), (entries,), 0, nodes - 1),
        "history_time": _Column(("int64",), (entries,), 0, _LATEST_MS),
        "history_judgement": _Column(("uint8",), (entries,), 0, WITHDRAWN),
        "history_grade": _Column(("uint8",), (entries,)),
        "history_event": _Column(("uint64",), (entries, 5)),
    }


def _check_columns(arrays: Arrays, columns: Mapping[str, _Column]) -> None:
    missing = sorted(columns.keys() - arrays.keys())
    _require(not missing, f"the snapshot lacks {', '.join(missing)}")
    for name, (dtypes, shape, least, most) in columns.items():
        array = arrays[name]
        _require(array.dtype.name in dtypes, f"{name} holds {array.dtype}")
        _require(array.shape == shape, f"{name} has the shape {array.shape} where {shape} was expected")
        if least is None or most is None or not array.size:
            continue
        _require(bool(np.isfinite(array).all()), f"{name} holds a number that is not finite")
        _require(bool(least <= array.min() and array.max() <= most), f"{name} holds a number that is out of range")


def _names(arrays: Arrays, nodes: int) -> list[str]:
    blob = arrays["names"]
    _require(blob.dtype == np.uint8 and blob.ndim == 1, "names are no bytes")
    try:
        names = msgspec.msgpack.decode(blob.tobytes(), type=list[str])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IncompatibleSnapshot(f"its names are malformed: {error}") from error
    _require(len(names) == nodes, f"it has {len(names)} names for {nodes} nodes")
    for kind in (USER, ITEM):
        own = [names[node] for node in np.flatnonzero(arrays["kind"] == kind).tolist()]
        _require(all(own) and len(set(own)) == len(own), "a name is empty or comes twice")
    return names


def _check_lists(arrays: Arrays, kind: NDArray[np.uint8]) -> None:
    """Edges and histories belong to users and point to items; each pair has one edge; event ids are text."""
    for name in ("edge", "history"):
        _require(not arrays[f"{name}_count"][kind != USER].any(), f"{name}: a list that is no user's")
    for name in ("edge_neighbour", "history_item"):
        _require(bool((kind[arrays[name]] == ITEM).all()), f"{name} points to what is no item")
    _require(bool((arrays["edge_weight"] > 0).all()), "an edge without weight")
    owner = np.repeat(np.arange(kind.size, dtype=np.int64), arrays["edge_count"])
    pairs = (owner << 32) | arrays["edge_neighbour"]
    _require(np.unique(pairs).size == pairs.size, "a pair has two edges")
    owner = np.repeat(np.arange(kind.size), arrays["history_count"])
    time = arrays["history_time"]
    _require(not ((np.diff(owner) == 0) & (np.diff(time) < 0)).any(), "a history is out of order")
    _check_event_ids(np.ascontiguousarray(arrays["history_event"]))


def _check_waiting(waiting: Sequence[tuple[int, int, int, int, float]], kind: NDArray[np.uint8]) -> None:
    """Operations on edges that wait for their time, between a user and an item."""
    for time_ms, number, user, item, weight in waiting:
        _require(0 <= time_ms <= _LATEST_MS and 0 <= number <= 2**62, "a time that is waited for is out of range")
        _require(0 <= user < kind.size and 0 <= item < kind.size, "an edge that waits has no ends")
        _require(kind[user] == USER and kind[item] == ITEM, "an edge that waits is not between a user and an item")
        _require(bool(0 <= weight < np.inf), "an edge that waits has no weight")


def _check_event_ids(events: NDArray[np.uint64]) -> None:
    """All ids at once: together they are UTF-8, and none begins within a character."""
    first = events.view(np.uint8)[:, 0] if events.size else np.zeros(0, np.uint8)
    _require(bool(events.any(axis=1).all()), "an event id is empty")
    _require(not (first & 0xC0 == 0x80).any(), "an event id is no text")
    try:
        events.tobytes().decode()
    except UnicodeDecodeError as error:
        raise IncompatibleSnapshot("an event id is no text") from error


def _require(condition: bool, said: str) -> None:
    if not condition:
        raise IncompatibleSnapshot(said)
