"""Answered requests on their way from the compute thread to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from worker.compute import ComputeThread
from worker.job import Job


class AnsweredJobs:
    """A queue with two ends in two threads. Those that came late are handed out after all others.

    Args:
        thread: the compute thread, which puts jobs in.
    """

    def __init__(self, thread: ComputeThread) -> None:
        self._thread = thread
        self._on_time: deque[Job] = deque()
        self._late: deque[Job] = deque()
        self._any = asyncio.Event()

    def put(self, jobs: Sequence[Job]) -> None:
        """Called in the compute thread."""
        for job in jobs:
            (self._late if job.deadline.late_at_intake else self._on_time).append(job)
        if jobs:
            self._thread.tell_loop(self._any.set)

    async def wait(self) -> None:
        """Returns once jobs have been put in since the last call. Called in the event loop."""
        await self._any.wait()
        self._any.clear()

    def pop(self, most: int) -> list[Job]:
        """The next jobs, at most so many; none if there are none. Called in the event loop."""
        queue = self._on_time or self._late
        return [queue.popleft() for _ in range(min(most, len(queue)))]
