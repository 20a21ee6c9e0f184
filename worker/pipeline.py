"""READ FIRST. One impression request, from the record to its scores:

    event loop      accept    decode → deadline → queue       malformed: dead letter
    compute thread  infer     one round of the engine over the queue; for candidates whose turn it is the engine calls
                    prepare     retrieve → prompt             then stage after stage, until a head is confident
                    graph_ctr   instead, where no head can answer before the deadline, or one of these steps fails
                    (`worker.preparation`; `worker.serving` knows the model)
    event loop      publish   scores → done                   the delivery commits the offset once they are written

The engine decides whose turn it is and when to fall back (`worker.engine.queue`), the delivery when to commit
(`runtime.delivery`). Every request whose partition is still ours ends in one record: its scores or a dead letter. With
at-least-once delivery that record may be written again after a crash.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import structlog

from runtime.clock import Clock
from runtime.dead_letters import DeadLetters
from runtime.delivery import Delivery
from runtime.errors import BrokerError, RecordTooLarge
from runtime.foreign_keys import ForeignKeys
from runtime.records import OutRecord, Record
from runtime.settings import DeliveryMode
from schemas.codec import MalformedRecord
from worker.awaiting_states import RequestsAwaitingStates
from worker.budget.delivery_margin import DeliveryMargin
from worker.compute import ComputeThread
from worker.handover import AnsweredJobs
from worker.intake import Intake
from worker.job import Job
from worker.metrics import RequestLog, WorkerMetrics
from worker.observers import Observers
from worker.publishing import Publisher
from worker.serving import Serving
from worker.settings import WorkerSettings
from worker.shadow import is_in_share
from worker.user_partitions import UserPartitions

log = structlog.get_logger(__name__)
PUBLISHED_IN_A_ROW: Final = 16
"""After so many the event loop gets a turn for everything else."""
WRITING_S: Final[dict[DeliveryMode, float]] = {"at_least_once": 0.01, "exactly_once": 0.06}
"""What writing scores is assumed to take until that has been measured."""
MOST_MARGIN: Final = 0.4
"""Share of the default budget that is at most kept back for writing and reading."""


class Pipeline:
    """The way of a request through a worker.

    Args:
        settings: of the worker.
        serving: the model at work.
        thread: the compute thread; it owns torch, FAISS and the tables.
        delivery: writes outputs and commits offsets.
        metrics: what is counted.
        clock: of deadlines and measurements.
        observers: who is told of requests.
        partitions: of the users that are held here; None: all users are.

    Attributes:
        awaiting: requests that wait for their user's state; None where all users are held.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        serving: Serving,
        thread: ComputeThread,
        delivery: Delivery,
        metrics: WorkerMetrics,
        clock: Clock,
        observers: Observers,
        partitions: UserPartitions | None = None,
    ) -> None:
        self._serving = serving
        self._thread = thread
        self._delivery = delivery
        self._metrics = metrics
        self._clock = clock
        self._observers = observers
        self._intake = Intake(settings, clock, ForeignKeys("requests", metrics.foreign_keys.inc))
        self._dead_letters = DeadLetters("worker", settings.topics.dead_letter_suffix, clock)
        self._publisher = Publisher(settings.scores_topic, settings.worker.answer_format, settings.worker.neighbours)
        self._shadow_share = settings.worker.shadow_share
        self._log = RequestLog(settings.worker, clock)
        self._delivery_margin = DeliveryMargin(
            reading_s=settings.worker.reading_margin_ms / 1000,
            writing_s=WRITING_S[settings.kafka.delivery],
            most_s=settings.worker.budget_ms / 1000 * MOST_MARGIN,
        )
        self._accepted: deque[Job] = deque()  # from the event loop to the compute thread
        self._answered = AnsweredJobs(thread)  # and back
        self.awaiting = None if partitions is None else RequestsAwaitingStates(partitions, metrics, self._take_in)

    # In the event loop.

    async def accept(self, record: Record) -> None:
        """Decodes the record and queues the request with its deadline. To be called for every record read."""
        if not self._delivery.started(record):
            return  # the partition has a new owner by now, who reads the record again
        try:
            request, wire_format = self._intake.decode(record)
            deadline, budget_s = self._intake.deadline(request, record)
        except MalformedRecord as error:
            await self._refuse(record, str(error))
        except Exception as error:  # no record may end a worker: it would come back after every restart
            log.exception("a request could not be read", place=str(record))
            await self._refuse(record, f"it could not be read: {error!r}")
        else:
            if self._shadow_share is not None and not is_in_share(request.request_id, self._shadow_share):
                await self._delivery.finished(record, [])
                return
            self._metrics.note_deadline(deadline)
            job = Job(record, request, deadline, budget_s, wire_format)
            self._observers.accepted(job)
            if self.awaiting is None or not self.awaiting.keep(job):
                self._take_in(job)

    def _take_in(self, job: Job) -> None:
        self._accepted.append(job)
        self._thread.wake()

    async def condemn(self, record: Record) -> None:
        """Ends a record that ended the process at least twice, the last time while nothing else was at work."""
        if self._delivery.started(record):
            await self._refuse(record, "the process died twice while it was at work, the last time on it alone")

    # In the compute thread.

    def infer(self) -> bool:
        """One round of the engine: it prepares the requests that are next and runs one stage of the most urgent ones.

        The thread calls it again while it returns True, and after each `wake`.
        """
        for _ in range(len(self._accepted)):
            self._serving.enqueue(self._accepted.popleft())
        self._answered.put(self._serving.step(self._delivery_margin.seconds))
        return self._serving.is_busy or bool(self._accepted)

    # In the event loop again.

    async def publish_all(self) -> None:
        """Publishes what the compute thread answers, until cancelled."""
        while True:
            await self._answered.wait()
            await self.publish_answered()

    async def publish_answered(self) -> None:
        """Publishes what has been answered so far."""
        while jobs := self._answered.pop(PUBLISHED_IN_A_ROW):
            self._note([job for job in jobs if await self.publish(job)])
            await asyncio.sleep(0)

    async def publish(self, job: Job) -> bool:
        """Hands the scores to the delivery. A job whose scores cannot be written ends as a dead letter.

        Returns:
            whether the scores are being written.

        Raises:
            BrokerError: delivering has become impossible, whatever the record.
        """
        try:
            await self._write_fitting(job)
        except RecordTooLarge as error:
            await self._refuse_job(job, f"its scores cannot be written: {error}")
            return False
        except BrokerError:
            raise
        except Exception as error:  # no answer may end a worker: it would be made again after every restart
            log.exception("scores could not be written", place=job.place)
            await self._refuse_job(job, f"its scores cannot be written: {error!r}")
            return False
        return True

    def _note(self, jobs: Sequence[Job]) -> None:
        """Counts answers and writes their log lines."""
        try:
            self._metrics.note_answers(jobs)
            for job in jobs:
                self._log.write(job)
                self._observers.answered(job)
        except Exception:
            log.exception("answers could not be counted", places=[job.place for job in jobs])

    async def _write_fitting(self, job: Job) -> None:
        """Writes the scores, without their neighbours if they are too large with them."""
        try:
            await self._write(job, self._publisher.record(job))
        except RecordTooLarge:
            await self._write(job, self._publisher.record(job, with_neighbours=False))

    async def _write(self, job: Job, output: OutRecord) -> None:
        """The record is done once the delivery has written the output.

        Raises:
            RecordTooLarge: nothing was handed over.
        """
        await self._delivery.finished(job.record, [output], partial(self._note_written, job), self._if_refused(job))

    def _if_refused(self, job: Job) -> Iterator[list[OutRecord]]:
        """What to write instead each time the broker refuses it as too large."""
        yield [self._publisher.record(job, with_neighbours=False)]
        reason = "the broker refuses its scores as too large"
        self._observers.refused(job, reason)
        yield self._refusal(job.record, reason)

    def _note_written(self, job: Job) -> None:
        """Learns how long writing takes. Jobs that came late say nothing of it: they are published after all others."""
        if not job.deadline.late_at_intake:
            self._delivery_margin.observe(self._clock.monotonic() - job.scored_s)
        self._observers.written(job)

    async def _refuse_job(self, job: Job, reason: str) -> None:
        self._observers.refused(job, reason)
        await self._refuse(job.record, reason)

    async def _refuse(self, record: Record, reason: str) -> None:
        """Ends the record as a dead letter."""
        await self._delivery.finished(record, self._refusal(record, reason))

    def _refusal(self, record: Record, reason: str) -> list[OutRecord]:
        """What is written for a record that is refused: a dead letter; nothing by a shadow, whose requests others
        answer or refuse.
        """
        log.warning("request refused", place=str(record), reason=reason)
        if self._shadow_share is not None:
            return []
        self._metrics.dead_letters.labels(record.topic).inc()
        return [self._dead_letters.letter(record, reason)]
