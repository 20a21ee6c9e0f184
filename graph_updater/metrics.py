"""Metrics of the updater."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from graph_updater.state.nodes import MemoryReport
from runtime.observability.telemetry import Metrics

_SAMPLE: Final = 200


class UpdaterMetrics(Metrics):
    """Counters and distributions of one updater, `exitstream_updater_…`."""

    def __init__(self) -> None:
        super().__init__("updater")
        self.interactions = self.counter("interactions_total", "Interactions applied")
        self.items = self.counter("items_total", "Catalogue entries applied")
        self.foreign_keys = self.counter(
            "foreign_keys_total", "Interactions taken in under a key that is not their user's id"
        )
        self.not_finite = self.counter(
            "not_finite_total", "Embeddings that were not finite and were kept from being published"
        )
        self._not_finite_noted = 0
        self.published = self.counter(
            "published_total", "States published, and parts of items told to other shards", ("kind",)
        )
        self.parts_received = self.counter("parts_received_total", "What shards have told of items, this one's own too")
        self.parts_refused = self.counter("parts_refused_total", "What shards have told of items that cannot be used")
        self.pending = self.gauge("pending_batches", "Batches of state changes awaiting confirmed publication")
        self.leading = self.gauge("leading", "1 while this updater leads and publishes")
        self.shards = self.gauge("shards", "Updaters that share the users: so many lead")
        self.bundle_changes = self.counter("bundle_changes_total", "Times another version of the bundle was taken over")
        self.bundles_refused = self.counter("refused_bundles_total", "Newer versions of the bundle that cannot be used")
        self.rebuilds = self.counter("rebuilds_total", "Times the state was rebuilt from the topics")
        self.gap_records = self.counter("gap_records_total", "Records that expired before they were read", ("topic",))
        self.absorbing = self.histogram("absorb_seconds", "Time to apply one poll's records")
        self.publishing = self.histogram("publish_seconds", "Time to encode a batch and write its transactions")
        self.freshness = self.histogram(
            "freshness_seconds", "From an interaction's event time until the states it changed can be read"
        )
        self.memory = self.gauge(
            "state_bytes", "Memory of the state, and per edge, node and past interaction", ("per",)
        )
        self.snapshots = self.counter("snapshots_total", "Snapshots written")
        self.snapshot_failures = self.counter("snapshot_failures_total", "Snapshots that could not be written")
        self.snapshot_seconds = self.histogram("snapshot_seconds", "Time to write a snapshot in the background")

    def note_memory(self, report: MemoryReport) -> None:
        """Sets the memory gauges."""
        for per, held in vars(report).items():
            self.memory.labels(per.removeprefix("per_")).set(held)

    def note_not_finite(self, total: int) -> None:
        """Counts embeddings kept from being published; `total` since the start of the program."""
        self.not_finite.inc(total - self._not_finite_noted)
        self._not_finite_noted = total

    def observe_freshness(self, event_times_ms: Sequence[int], now_ms: int) -> None:
        """Records the age of events when their changes became readable; of many events an even sample.

        Event times in the future count as age 0.
        """
        for event_time_ms in event_times_ms[:: 1 + len(event_times_ms) // _SAMPLE]:
            self.freshness.observe(max(0, now_ms - event_time_ms) / 1000)
