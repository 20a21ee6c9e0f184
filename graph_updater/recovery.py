"""Where the state comes from at the start: a snapshot or, without a usable one, the topics (`rebuild`)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import structlog

from graph_updater.graph.base_embeddings import BaseEmbeddings
from graph_updater.graph.config import GraphConfig
from graph_updater.origin import Origin, SavedOrigin
from graph_updater.publication.batch import Offsets
from graph_updater.state.snapshot_checks import IncompatibleSnapshot
from graph_updater.state.updater_state import UpdaterState
from runtime.errors import SnapshotError
from runtime.records import TopicPartition
from runtime.snapshots import Snapshot, SnapshotStore

SNAPSHOT_KIND: Final = "exitstream updater"
_Offset = Annotated[int, msgspec.Meta(ge=0)]
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Recovered:
    """A state and its offsets.

    Attributes:
        state: of a snapshot, or empty.
        offsets: next offset to be read per partition; none if the state is empty.
        is_published: whether the topics hold what the snapshot took for published: not where they were made again, and
            not if it was made with another bundle's base embeddings.
        made_again: topics that were deleted and made again since the newest snapshot.
        is_of_other_space: whether it was made with another bundle's base embeddings: the topics lack every state of
            ours, unless another updater has published them.
    """

    state: UpdaterState
    offsets: Offsets
    is_published: bool = True
    made_again: frozenset[str] = frozenset()
    is_of_other_space: bool = False


class _Metadata(msgspec.Struct):
    """What `Snapshots` writes beside the arrays."""

    state: dict[str, Any]
    origin: SavedOrigin
    offsets: list[tuple[str, _Offset, _Offset]]
    saved_ms: int = 0
    """When, Unix milliseconds; earlier releases did not tell."""


def recover(store: SnapshotStore, config: GraphConfig, base: BaseEmbeddings, origin: Origin) -> Recovered:
    """The state of the newest usable snapshot, else an empty state. Each snapshot refused is logged with the reason."""
    made_again: frozenset[str] = frozenset()
    for sequence in _newest_first(store):
        try:
            snapshot = store.load(sequence)
            metadata = _metadata_of(snapshot)
            made_again |= origin.changed_topics(metadata.origin)
            recovered = _restored(snapshot, metadata, config, base, origin)
        except (SnapshotError, IncompatibleSnapshot) as error:
            log.warning("snapshot refused, trying the one before", snapshot=sequence, cause=str(error))
        else:
            log.info("recovered from a snapshot", snapshot=sequence, address=store.address)
            return recovered
    log.info("no usable snapshot: building the state from the topics")
    state = UpdaterState(config, base, origin.shard)
    return Recovered(state, {}, is_published=False, made_again=made_again)


def for_another_space(offsets: Offsets, origin: Origin) -> dict[TopicPartition, int]:
    """Offsets with which everything that depends on the space is read from its beginning."""
    return {place: offset for place, offset in offsets.items() if place.topic not in origin.of_a_space}


def _newest_first(store: SnapshotStore) -> list[int]:
    try:
        return sorted(store.sequences(), reverse=True)
    except SnapshotError as error:
        log.warning("snapshots cannot be read", cause=str(error))
        return []


def _metadata_of(snapshot: Snapshot) -> _Metadata:
    try:
        return msgspec.convert(snapshot.metadata, _Metadata)
    except msgspec.ValidationError as error:
        raise IncompatibleSnapshot(f"its metadata are malformed: {error}") from error


def _restored(
    snapshot: Snapshot, metadata: _Metadata, config: GraphConfig, base: BaseEmbeddings, origin: Origin
) -> Recovered:
    origin.check(metadata.origin, time.time_ns() // 1_000_000 - metadata.saved_ms)
    again = origin.changed_topics(metadata.origin)
    offsets = {TopicPartition(topic, partition): offset for topic, partition, offset in metadata.offsets}
    if not offsets or not {topic for topic, _ in offsets} <= set(origin.topics):
        raise IncompatibleSnapshot("its offsets are not those of the input topics")
    is_ours = origin.is_of_same_space(metadata.origin)
    state = UpdaterState.restore(
        config, base, snapshot.arrays, metadata.state, of_other_space=not is_ours, shard=origin.shard
    )
    if not is_ours:
        log.warning(
            "the snapshot was made with another bundle: embeddings are made anew, and all are published",
            bundle=metadata.origin.model_version,
        )
        offsets = for_another_space(offsets, origin)
    if again:
        log.warning("topics were deleted and made again: publishing what they lack", topics=sorted(again))
    return Recovered(
        state, offsets, is_published=is_ours and not again, made_again=again, is_of_other_space=not is_ours
    )
