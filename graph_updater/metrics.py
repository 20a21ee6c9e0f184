"""What the updater tells about itself."""

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
        self.interactions = self.counter("interactions_total", "Interactions taken in")
        self.items = self.counter("items_total", "Catalogue entries taken in")
        self.published = self.counter("published_total", "States published", ("kind",))
        self.waiting = self.gauge("waiting_batches", "Parcels that nobody is known to have published")
        self.leading = self.gauge("leading", "1 while this updater is the one that publishes")
        self.rebuilds = self.counter("rebuilds_total", "Times the state was built anew from the earliest records")
        self.absorbing = self.histogram("absorb_seconds", "Time to take one micro-batch in")
        self.publishing = self.histogram("publish_seconds", "Time from collecting a batch to its transactions' end")
        self.freshness = self.histogram(
            "freshness_seconds", "From an interaction's event time until every state it moved can be read"
        )
        self.memory = self.gauge("state_bytes", "Memory of the state; per edge, node and past interaction", ("per",))
        self.snapshots = self.counter("snapshots_total", "Snapshots written")
        self.snapshot_seconds = self.histogram("snapshot_seconds", "Time to write a snapshot, beside the stream")

    def note_memory(self, report: MemoryReport) -> None:
        """Tells how much memory the state takes."""
        for per, held in vars(report).items():
            self.memory.labels(per.removeprefix("per_")).set(held)

    def observe_freshness(self, event_times_ms: Sequence[int], now_ms: int) -> None:
        """Notes how old events were when what they moved became readable; of many, some spread evenly over all. Clocks
        that are ahead count as no time.
        """
        for event_time_ms in event_times_ms[:: 1 + len(event_times_ms) // _SAMPLE]:
            self.freshness.observe(max(0, now_ms - event_time_ms) / 1000)
