"""Who is told of requests on their way through a worker: figures, outcomes, traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.job import Job
from worker.tracing import RequestTracing


@dataclass(frozen=True)
class Observers:
    """Told in the event loop.

    Attributes:
        note: told of each request whose scores are being written.
        tracing: makes traces of requests; None where they are off.
    """

    note: Sequence[Callable[[Job], None]] = ()
    tracing: RequestTracing | None = None

    def accepted(self, job: Job) -> None:
        """A request has arrived."""
        if self.tracing is not None:
            self.tracing.begin(job)

    def answered(self, job: Job) -> None:
        """Its scores are being written."""
        for note in self.note:
            note(job)

    def written(self, job: Job) -> None:
        """The broker has its scores."""
        if self.tracing is not None:
            self.tracing.end(job)

    def refused(self, job: Job, reason: str) -> None:
        """It ends as a dead letter."""
        if self.tracing is not None:
            self.tracing.fail(job, reason)
