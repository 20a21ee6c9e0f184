"""Detects a stalled consumer: the broker answers, records are waiting, but no offset advances.

The client library can hang after a broker's restart without its API showing it. Only restarting the process helps, so
the watchdog first reports "not ready", then ends the program. While the broker does not answer no time counts: waiting
is all a program can do then, and a restart would not help.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from runtime.clock import Clock
from runtime.errors import BrokerError, BrokerUnreachable, Stalled
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness
from runtime.observability.telemetry import Metrics
from runtime.records import TopicPartition
from runtime.settings import TelemetrySettings

CONDITION: Final = "progress"
_ASK_LIMIT_S: Final = 10.0
_UNKNOWN: Final = -1


class WatchedReader(Protocol):
    """What the watchdog asks of a reader."""

    async def end_offsets(self) -> dict[TopicPartition, int]:
        """The offset after the last readable record, per assigned partition, as the broker has it now."""

    async def positions(self) -> dict[TopicPartition, int]:
        """The next offset to be read, per assigned partition."""

    def paused(self) -> frozenset[TopicPartition]:
        """The partitions that are not to move at present."""

    def backlog_lag(self) -> dict[TopicPartition, int]:
        """Records before the position that are still being read as a backlog."""


class Reading(NamedTuple):
    """Where a partition stands: the next offset to be read and the end of what is there."""

    position: int
    end: int


@dataclass(slots=True)
class _Since:
    position: int
    time: float


class StallTimer:
    """Computes from readings how long each partition has lagged without progress. Does no I/O.

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

    def forget(self) -> None:
        """Starts over with every partition: the broker did not answer, so that nothing could move."""
        self._since = {}

    def stalled_s(self) -> dict[TopicPartition, float]:
        """Seconds without progress, for each partition watched; 0 for those that moved or have nothing to read."""
        now = self._clock.monotonic()
        return {partition: now - since.time for partition, since in self._since.items()}

    def _moved_or_since(self, partition: TopicPartition, reading: Reading, now: float) -> _Since:
        before = self._since.get(partition)
        if before is None or reading.position != before.position or reading.position >= reading.end:
            return _Since(reading.position, now)
        return before


@dataclass(frozen=True)
class Watchdog:
    """Watches the readers of one program: `spawn(watchdog.watch(source), "watchdog")`.

    Attributes:
        settings: after how long a stall makes the program unready, and ends it.
        readiness: of the program.
        outages: where a broker that does not answer is noted.
        metrics: shows the lag.
        clock: monotonic time.
        interval_s: pause between two looks at a reader.
    """

    settings: TelemetrySettings
    readiness: Readiness
    outages: Outages
    metrics: Metrics
    clock: Clock
    interval_s: float = 5.0

    async def watch(self, reader: WatchedReader, condition: str = CONDITION, *, shows_lag: bool = True) -> None:
        """Watches a reader until cancelled: puts its lag into the metrics and a stall into the readiness.

        Args:
            reader: to be watched.
            condition: of the readiness; each reader of a program has one of its own.
            shows_lag: whether this reader's lag is the one of its partitions.

        Raises:
            Stalled: after `stall_exit_s` without progress although the broker answers and records wait.
        """
        timer = StallTimer(self.clock)
        while True:
            try:
                readings = await _readings(reader)
            except BrokerError as error:
                self.outages.note(f"watching {condition}", error)
                timer.forget()
            else:
                self.outages.over(f"watching {condition}")
                timer.observe(readings, exempt=reader.paused())
                if shows_lag:
                    self._show_lag(readings, reader.backlog_lag())
            self._judge(timer.stalled_s(), condition)
            await asyncio.sleep(self.interval_s)

    def _show_lag(self, readings: Mapping[TopicPartition, Reading], backlog: Mapping[TopicPartition, int]) -> None:
        for place, (position, end) in readings.items():
            if position != _UNKNOWN:
                self.metrics.consumer_lag.labels(*place).set(max(0, end - position) + backlog.get(place, 0))

    def _judge(self, stalled_s: Mapping[TopicPartition, float], condition: str) -> None:
        partition, worst_s = max(stalled_s.items(), key=lambda item: item[1], default=(None, 0.0))
        said = f"{partition} has not moved for {worst_s:.0f} s although the broker answers and records wait"
        if worst_s >= self.settings.stall_exit_s:
            raise Stalled(f"{said}; restart this program")
        if worst_s >= self.settings.stall_not_ready_s:
            self.readiness.wait_for(condition, said)
        else:
            self.readiness.ready(condition)


async def _readings(reader: WatchedReader) -> dict[TopicPartition, Reading]:
    """Where the partitions stand, once the broker has answered.

    Raises:
        BrokerError: if it does not answer.
    """
    try:
        async with asyncio.timeout(_ASK_LIMIT_S):
            ends = await reader.end_offsets()
    except TimeoutError as error:
        raise BrokerUnreachable("asking for the end of what is read: no answer in time") from error
    try:
        async with asyncio.timeout(_ASK_LIMIT_S):
            positions = await reader.positions()
    except TimeoutError:  # the client waits for a position without end: that is a stall as well
        positions = dict.fromkeys(ends, _UNKNOWN)
    return {
        partition: Reading(position, ends[partition]) for partition, position in positions.items() if partition in ends
    }
