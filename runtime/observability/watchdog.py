"""Detects a stalled consumer: records are waiting, but no offset advances.

The client library can hang after a broker's restart without its API showing it. Only restarting the process helps, so
the watchdog first reports "not ready", then ends the program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import structlog

from runtime.clock import Clock
from runtime.errors import BrokerError, Stalled
from runtime.kafka.reader import PartitionReader
from runtime.observability.readiness import Readiness
from runtime.observability.telemetry import Metrics
from runtime.records import TopicPartition
from runtime.settings import TelemetrySettings

CONDITION: Final = "progress"
_ASK_LIMIT_S: Final = 10.0
log = structlog.get_logger(__name__)


class Reading(NamedTuple):
    """Where a partition stands: the next offset to be read and the end of what is there."""

    position: int
    end: int


@dataclass(slots=True)
class _Since:
    position: int
    time: float


class ProgressWatchdog:
    """Computes from readings how long each partition has lagged without progress. Does no I/O.

    While the broker does not answer there are no readings, and the time without progress grows as well.

    Args:
        clock: monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[TopicPartition, _Since] = {}

    def observe(
        self, readings: Mapping[TopicPartition, Reading], exempt: frozenset[TopicPartition] = frozenset()
    ) -> None:
        """Records where the partitions stand. Those not named, and the exempt ones (paused by us), start over."""
        now = self._clock.monotonic()
        watched = {partition: reading for partition, reading in readings.items() if partition not in exempt}
        self._since = {
            partition: self._moved_or_since(partition, reading, now) for partition, reading in watched.items()
        }

    def stalled_s(self) -> dict[TopicPartition, float]:
        """Seconds without progress, for each partition watched; 0 for those that moved or have nothing to read."""
        now = self._clock.monotonic()
        return {partition: now - since.time for partition, since in self._since.items()}

    def _moved_or_since(self, partition: TopicPartition, reading: Reading, now: float) -> _Since:
        before = self._since.get(partition)
        if before is None or reading.position != before.position or reading.position >= reading.end:
            return _Since(reading.position, now)
        return before


async def watch_progress(
    reader: PartitionReader,
    clock: Clock,
    settings: TelemetrySettings,
    readiness: Readiness,
    metrics: Metrics,
    interval_s: float = 5.0,
) -> None:
    """Watches a reader until cancelled: puts its lag into the metrics and a stall into the readiness.

    Raises:
        Stalled: after `stall_exit_s` without progress although records wait.
    """
    watchdog = ProgressWatchdog(clock)
    while True:
        readings = await _readings(reader)
        if readings is not None:
            watchdog.observe(readings, exempt=reader.paused())
            backlog = reader.backlog_lag()
            for place, (position, end) in readings.items():
                metrics.consumer_lag.labels(*place).set(max(0, end - position) + backlog.get(place, 0))
        _judge(watchdog.stalled_s(), settings, readiness)
        await asyncio.sleep(interval_s)


async def _readings(reader: PartitionReader) -> dict[TopicPartition, Reading] | None:
    try:
        async with asyncio.timeout(_ASK_LIMIT_S):
            ends, positions = await reader.end_offsets(), await reader.positions()
    except (BrokerError, TimeoutError) as error:
        log.warning("the broker does not answer with its end offsets", cause=str(error) or type(error).__name__)
        return None
    return {
        partition: Reading(position, ends[partition]) for partition, position in positions.items() if partition in ends
    }


def _judge(stalled_s: Mapping[TopicPartition, float], settings: TelemetrySettings, readiness: Readiness) -> None:
    if not stalled_s:
        readiness.ready(CONDITION)
        return
    partition, worst_s = max(stalled_s.items(), key=lambda item: item[1])
    if worst_s >= settings.stall_exit_s:
        raise Stalled(f"{partition} has not moved for {worst_s:.0f} s although records wait; restart this program")
    if worst_s >= settings.stall_not_ready_s:
        readiness.wait_for(CONDITION, f"{partition} has not moved for {worst_s:.0f} s although records wait")
    else:
        readiness.ready(CONDITION)
