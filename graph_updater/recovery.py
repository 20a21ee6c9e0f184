"""Recovers the state at the start, and writes the snapshots to recover from.

A snapshot holds the state and its offsets. It is written only once all changes in it have been published, so that after
a recovery only later changes need to be published.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import structlog

from graph_updater.engine import Capture
from graph_updater.graph.base_embeddings import BaseEmbeddings
from graph_updater.graph.config import GraphConfig
from graph_updater.metrics import UpdaterMetrics
from graph_updater.publication.outbox import Offsets
from graph_updater.state.snapshot import IncompatibleSnapshot
from graph_updater.state.updater_state import UpdaterState
from runtime.clock import Clock
from runtime.errors import SnapshotError
from runtime.records import TopicPartition
from runtime.snapshots import Snapshot, SnapshotStore

SNAPSHOT_KIND: Final = "exitstream updater"
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Origin:
    """What a snapshot must agree with to be used.

    Attributes:
        model_version: of the bundle; embeddings of different models must not be mixed.
        cluster: id of the Kafka cluster, to which the offsets belong.
        topics: the input topics.
    """

    model_version: str
    cluster: str
    topics: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For a snapshot's metadata."""
        return {"model_version": self.model_version, "cluster": self.cluster, "topics": list(self.topics)}


@dataclass(frozen=True)
class Recovered:
    """A state and its offsets; no offsets if it is to be built from the earliest records."""

    state: UpdaterState
    offsets: Offsets

    @property
    def from_scratch(self) -> bool:
        """Whether there was no snapshot to use."""
        return not self.offsets


def recover(store: SnapshotStore, config: GraphConfig, base: BaseEmbeddings, origin: Origin) -> Recovered:
    """The state of the newest usable snapshot, else an empty state. Each snapshot refused is logged with the reason.

    Raises:
        SnapshotError: if the snapshots' address cannot be read at all.
    """
    for sequence in sorted(store.sequences(), reverse=True):
        try:
            snapshot = store.load(sequence)
            _check_origin(snapshot, origin)
            state = UpdaterState.restore(config, base, snapshot.arrays, snapshot.metadata["state"])
        except (SnapshotError, IncompatibleSnapshot) as error:
            log.warning("snapshot refused, trying the one before", snapshot=sequence, cause=str(error))
        else:
            log.info("recovered from a snapshot", snapshot=sequence, address=store.address)
            return Recovered(state, _offsets_from(snapshot.metadata["offsets"]))
    log.info("no usable snapshot: building the state from the earliest records")
    return from_scratch(config, base)


def from_scratch(config: GraphConfig, base: BaseEmbeddings) -> Recovered:
    """An empty state, to be built from the earliest records."""
    return Recovered(UpdaterState(config, base), {})


class Snapshots:
    """Writes snapshots at regular intervals, in the background.

    Args:
        store: where to.
        origin: part of every snapshot's metadata.
        interval_s: least time between two.
        clock: for the interval.
        metrics: counts them.
    """

    def __init__(
        self, store: SnapshotStore, origin: Origin, interval_s: float, clock: Clock, metrics: UpdaterMetrics
    ) -> None:
        self._store = store
        self._origin = origin
        self._interval_s = interval_s
        self._clock = clock
        self._metrics = metrics
        self._last = clock.monotonic()
        self._offsets: Offsets = {}
        self._writing: asyncio.Task[None] | None = None

    def is_due(self, published: Offsets) -> bool:
        """Whether to begin one: the interval has passed, none is being written, and there is something new."""
        if self._writing is not None and self._writing.done():
            self._writing.result()
            self._writing = None
        waited_s = self._clock.monotonic() - self._last
        return self._writing is None and waited_s >= self._interval_s and published != self._offsets

    def write_beside(self, capture: Capture) -> None:
        """Starts writing in the background."""
        self._last, self._offsets = self._clock.monotonic(), capture.offsets
        self._writing = asyncio.create_task(self.write(capture), name="snapshot")

    async def write(self, capture: Capture) -> None:
        """Writes a snapshot in a thread. A failure is logged only: the next one may succeed."""
        began = self._clock.monotonic()
        try:
            sequence = await asyncio.to_thread(self._write_now, capture)
        except SnapshotError as error:
            log.warning("no snapshot was written", cause=str(error))
            return
        took_s = self._clock.monotonic() - began
        self._metrics.snapshots.inc()
        self._metrics.snapshot_seconds.observe(took_s)
        log.info("snapshot written", snapshot=sequence, address=self._store.address, took_s=round(took_s, 3))

    async def settled(self) -> None:
        """Waits until no snapshot is being written."""
        if self._writing is not None:
            await self._writing

    def _write_now(self, capture: Capture) -> int:
        arrays, metadata = capture.copy.merge()
        offsets = [[topic, partition, offset] for (topic, partition), offset in capture.offsets.items()]
        return self._store.save_now(
            arrays, {"state": metadata, "origin": self._origin.to_json(), "offsets": sorted(offsets)}
        )


def _check_origin(snapshot: Snapshot, origin: Origin) -> None:
    """Refuses the state of another model, cluster or topic."""
    saved, ours = snapshot.metadata["origin"], origin.to_json()
    for name, value in ours.items():
        if saved.get(name) != value:
            raise IncompatibleSnapshot(f"it was made with {name} {saved.get(name)}, this updater has {value}")


def _offsets_from(offsets: list[tuple[str, int, int]]) -> Offsets:
    return {TopicPartition(topic, partition): offset for topic, partition, offset in offsets}
