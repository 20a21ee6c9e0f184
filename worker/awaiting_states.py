"""Requests whose user's state is still to be read, as after a rebalance: each waits a part of the time that it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from worker.job import Job
from worker.metrics import WorkerMetrics
from worker.user_partitions import UserPartitions

SHARE_OF_BUDGET: Final = 0.5
"""What a request waits at most; with the rest the graph answers it in time."""


class RequestsAwaitingStates:
    """Keeps requests until their partition's states have been read. Those for which that takes too long go on without:
    they are answered, mostly from the graph, as for a user of whom nothing is known, and their scores say so.

    Args:
        partitions: know which states have been read.
        metrics: what is counted.
        go_on: takes requests in.
    """

    def __init__(self, partitions: UserPartitions, metrics: WorkerMetrics, go_on: Callable[[Job], None]) -> None:
        self._partitions = partitions
        self._metrics = metrics
        self._go_on = go_on
        self._waiting: dict[Job, asyncio.TimerHandle] = {}
        self._is_open = True
        partitions.when_read(self._release_read)

    def keep(self, job: Job) -> bool:
        """Whether the request waits here from now on."""
        partition = self._partitions.partition_of(job.request.user_id)
        if partition in self._partitions.read:
            return False
        if partition not in (self._partitions.assigned or ()):
            # Its record lies elsewhere than its user's state, for which nobody has a reason to wait.
            self._metrics.misplaced_requests.inc()
            job.user_state_read = False
            return False
        wait_s = SHARE_OF_BUDGET * max(0.0, job.due_s - job.arrived_s) if self._is_open else 0.0
        self._waiting[job] = asyncio.get_running_loop().call_later(wait_s, self._go_on_without, job)
        return True

    def close(self) -> None:
        """Nobody waits any longer, until `open`."""
        self._is_open = False
        for job in list(self._waiting):
            self._go_on_without(job)

    def open(self) -> None:
        """Requests that come from now on may wait."""
        self._is_open = True

    def _go_on_without(self, job: Job) -> None:
        self._waiting.pop(job).cancel()
        job.user_state_read, job.graph_only = False, not job.may_be_late
        self._metrics.awaited_states.labels("in_vain").inc()
        self._go_on(job)

    def _release_read(self) -> None:
        read = self._partitions.read
        for job in [job for job in self._waiting if self._partitions.partition_of(job.request.user_id) in read]:
            self._waiting.pop(job).cancel()
            self._metrics.awaited_states.labels("read").inc()
            self._go_on(job)
