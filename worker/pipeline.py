"""READ FIRST. One impression request, from the record to its scores:

    decode → deadline → queue → retrieve → prompt → infer → publish → done

`accept` and `publish` run in the event loop; `prepare` and `infer` run in the compute thread, which owns torch, FAISS
and the tables. Whatever happens to a request, it ends in exactly one record: its scores or a dead letter.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.evidence import Evidence
from models.prompt import Prompt
from runtime.clock import Clock
from runtime.dead_letters import DeadLetters
from runtime.delivery import Delivery
from runtime.errors import RecordTooLarge
from runtime.records import OutRecord, Record
from schemas.codec import MalformedRecord
from worker.budget.delivery_margin import DeliveryMargin
from worker.compute import ComputeThread
from worker.handover import AnsweredJobs
from worker.intake import Intake
from worker.job import Job
from worker.metrics import RequestLog, WorkerMetrics
from worker.model import ServingModel
from worker.publishing import Publisher
from worker.settings import WorkerSettings

Places = NDArray[np.int64]


class Pipeline:
    """The way of a request through a worker.

    Args:
        settings: of the worker.
        model: the bundle that serves.
        thread: the compute thread.
        delivery: writes outputs and commits offsets.
        metrics: what is counted.
        clock: ours.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        model: ServingModel,
        thread: ComputeThread,
        delivery: Delivery,
        metrics: WorkerMetrics,
        clock: Clock,
    ) -> None:
        self._model = model
        self._thread = thread
        self._delivery = delivery
        self._metrics = metrics
        self._clock = clock
        self._intake = Intake(settings, clock)
        self._letters = DeadLetters("worker", settings.topics.dead_letter_suffix, clock)
        self._publisher = Publisher(
            settings.topics.ctr_scores, settings.kafka.wire_format, model.version, settings.worker.neighbours
        )
        self._log = RequestLog(settings.worker, clock)
        self._margin = DeliveryMargin(
            reading_s=settings.worker.reading_margin_ms / 1000,
            writing_s=_WRITING_S[settings.kafka.delivery],
            most_s=settings.worker.budget_ms / 1000 * _MOST_MARGIN,
        )
        self._arrived: deque[Job] = deque()
        self._answered = AnsweredJobs(thread)

    async def accept(self, record: Record) -> None:
        """Decode → deadline → queue."""
        if not self._delivery.started(record):
            return  # its partition has a new owner by now, who reads it again
        try:
            request = self._intake.decode(record)
            deadline, budget_s = self._intake.deadline(request, record)
        except MalformedRecord as error:
            await self._refuse(record, str(error))
        else:
            self._metrics.note_deadline(deadline)
            self._arrived.append(Job(record, request, deadline, budget_s))
            self._thread.wake()

    def infer(self) -> bool:
        """One round of the engine over the queue; calls `prepare` for those whose turn it is. True: there is more."""
        for _ in range(len(self._arrived)):
            self._model.engine.enqueue(self._arrived.popleft())
        answered = self._model.engine.step(self, self._margin.seconds)
        for job in answered:
            job.scored_time_ms = self._clock.wall_ms()
        self._answered.put(answered)
        return self._model.engine.busy or bool(self._arrived)

    def prepare(self, job: Job, places: Places) -> Prompt:
        """Retrieve → prompt, for some of the request's candidates."""
        evidence = self._retrieve(job, places)
        return self._build_prompt(job, evidence)

    def graph_ctr(self, asked: Sequence[tuple[Job, Places]]) -> list[NDArray[np.float64]]:
        """Instead of `prepare` and the heads, for candidates that no head can answer in time."""
        for job, _ in asked:
            self._note_embedding(job)
        return self._model.graph.score([(job.request.user_id, job.items_at(places)) for job, places in asked])

    async def publish(self, job: Job) -> None:
        """Publish → done."""
        await self._deliver(job)
        self._metrics.note_answer(job)
        self._log.write(job)

    async def publish_all(self) -> None:
        """Publishes what the compute thread answers, until cancelled."""
        while True:
            await self._answered.wait()
            await self.publish_answered()

    async def publish_answered(self) -> None:
        """Publishes what has been answered so far."""
        for number in itertools.count(1):
            if (job := self._answered.pop()) is None:
                return
            await self.publish(job)
            if number % _PUBLISHED_IN_A_ROW == 0:
                await asyncio.sleep(0)  # a backlog must not keep the event loop from everything else

    def _retrieve(self, job: Job, places: Places) -> Evidence:
        started_s = self._clock.monotonic()
        evidence = self._model.retriever.retrieve(job.request.user_id, job.items_at(places))
        job.evidence.update(zip(places.tolist(), evidence.candidates, strict=True))
        self._note_embedding(job)
        job.retrieve_s += self._clock.monotonic() - started_s
        return evidence

    def _build_prompt(self, job: Job, evidence: Evidence) -> Prompt:
        started_s = self._clock.monotonic()
        prompt = self._model.prompts.build(evidence)
        job.prompt_s += self._clock.monotonic() - started_s
        return prompt

    def _note_embedding(self, job: Job) -> None:
        """Which embedding of the user it is scored with."""
        stamp = self._model.tables.users.embedding_stamp(job.request.user_id)
        if stamp is not None:
            job.embedding_version, job.embedding_time_ms = stamp

    async def _deliver(self, job: Job) -> None:
        """Writes the scores; if they are too large, without their neighbours."""
        try:
            await self._finish(job, self._publisher.record(job))
        except RecordTooLarge:
            try:
                await self._finish(job, self._publisher.record(job, with_neighbours=False))
            except RecordTooLarge as error:
                await self._refuse(job.record, f"its scores cannot be written: {error}")

    async def _finish(self, job: Job, output: OutRecord) -> None:
        await self._delivery.finished(job.record, [output], partial(self._note_delivery, job))

    def _note_delivery(self, job: Job) -> None:
        if not job.deadline.late_at_intake:  # late ones wait until others are written
            self._margin.observe(self._clock.monotonic() - job.scored_s)

    async def _refuse(self, record: Record, reason: str) -> None:
        await self._delivery.finished(record, [self._letters.letter(record, reason)])
        self._metrics.dead_letters.labels(record.topic).inc()


_PUBLISHED_IN_A_ROW: Final = 16
_WRITING_S: Final = {"at_least_once": 0.01, "exactly_once": 0.06}
"""What writing scores is assumed to take until that has been measured."""
_MOST_MARGIN: Final = 0.4
"""Share of the default budget that is at most kept back for writing and reading."""
