"""READ FIRST. One impression request, from the record to its scores:

    decode → deadline → retrieve → build prompt → infer → publish → mark done

`take_in` and `hand_out` run in the event loop, `step` in the compute thread; jobs go from one to the other through two
queues. Whatever happens to a request on its way, it ends in exactly one record: its scores or a dead letter.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from functools import partial

from runtime.clock import Clock
from runtime.dead_letters import DeadLetters
from runtime.delivery import Delivery
from runtime.errors import RecordTooLarge
from runtime.records import OutRecord, Record
from schemas.codec import MalformedRecord
from worker.compute import ComputeThread
from worker.intake import Intake
from worker.jobs import Job
from worker.metrics import RequestLog, WorkerMetrics
from worker.publishing import Publisher
from worker.scoring import Scorer
from worker.settings import WorkerSettings


class Pipeline:
    """The way of a request through a worker.

    Args:
        settings: of the worker.
        scorer: what the compute thread does.
        thread: the compute thread.
        delivery: takes outputs and marks records as done.
        metrics: what is counted.
        clock: ours.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        scorer: Scorer,
        thread: ComputeThread,
        delivery: Delivery,
        metrics: WorkerMetrics,
        clock: Clock,
    ) -> None:
        self._intake = Intake(settings, clock)
        self._letters = DeadLetters("worker", settings.topics.dead_letter_suffix, clock)
        self._publisher = Publisher(
            settings.topics.ctr_scores, settings.kafka.wire_format, scorer.model.version, settings.worker.neighbours
        )
        self._log = RequestLog(settings.worker, clock)
        self._scorer = scorer
        self._clock = clock
        self._thread = thread
        self._delivery = delivery
        self._metrics = metrics
        self._arrivals: deque[Job] = deque()
        self._answered: deque[Job] = deque()
        self._answered_late: deque[Job] = deque()
        self._something_answered = asyncio.Event()

    async def take_in(self, record: Record) -> None:
        """From the record to the compute thread: decode, deadline."""
        if not self._delivery.started(record):
            return  # its partition has a new owner meanwhile, who reads it again
        try:
            request = self._intake.decode(record)
            deadline, budget_ms = self._intake.deadline(request, record)
        except MalformedRecord as error:
            await self._refuse(record, str(error))
            return
        if deadline.skew != "none":
            self._metrics.clock_clamps.labels(deadline.skew).inc()
        self._arrivals.append(Job(record, request, deadline, budget_ms / 1000))
        self._thread.wake()

    def step(self) -> bool:
        """One round of the compute thread: retrieve, build prompts, infer. Tells whether there is more to do."""
        self._scorer.admit(self._arrived())
        self._scorer.answer_hopeless()
        while (part := self._scorer.next_part()) is not None:
            with self._scorer.contained(part):
                evidence = self._scorer.retrieve(part)
                prompt = self._scorer.build_prompt(part, evidence)
                self._scorer.submit(part, prompt)
        self._scorer.infer()
        self._hand_back(self._scorer.take_finished())
        return self._scorer.busy or bool(self._arrivals)

    async def hand_out(self, job: Job) -> None:
        """From the compute thread to Kafka: publish, mark done."""
        await self._deliver(job, self._publisher.record(job))
        self._metrics.note_answer(job)
        self._log.write(job)

    async def hand_out_all(self) -> None:
        """Hands out what the compute thread answers, for ever."""
        while True:
            await self._something_answered.wait()
            self._something_answered.clear()
            await self.hand_out_answered()

    async def hand_out_answered(self) -> None:
        """Hands out what has been answered so far; what was late when it came, after all else."""
        for number in itertools.count(1):
            queue = self._answered or self._answered_late
            if not queue:
                return
            await self.hand_out(queue.popleft())
            if number % _HANDED_OUT_IN_A_ROW == 0:
                await asyncio.sleep(0)  # a backlog must not keep the event loop from everything else

    def _arrived(self) -> list[Job]:
        return [self._arrivals.popleft() for _ in range(len(self._arrivals))]

    def _hand_back(self, jobs: list[Job]) -> None:
        if jobs:
            for job in jobs:
                (self._answered_late if job.deadline.late_at_intake else self._answered).append(job)
            self._thread.tell_loop(self._something_answered.set)

    async def _deliver(self, job: Job, output: OutRecord) -> None:
        """Hands the scores over; scores that are too large go without their neighbours."""
        note_delivery = partial(self._note_delivery, job)
        try:
            await self._delivery.finished(job.record, [output], note_delivery)
        except RecordTooLarge:
            lean = self._publisher.record(job, with_neighbours=False)
            try:
                await self._delivery.finished(job.record, [lean], note_delivery)
            except RecordTooLarge as error:
                await self._refuse(job.record, f"its scores cannot be written: {error}")

    def _note_delivery(self, job: Job) -> None:
        if not job.deadline.late_at_intake:  # those have waited for others to be written first
            self._scorer.margin.observe(self._clock.monotonic() - job.scored_s)

    async def _refuse(self, record: Record, reason: str) -> None:
        await self._delivery.finished(record, [self._letters.letter(record, reason)])
        self._metrics.dead_letters.labels(record.topic).inc()


_HANDED_OUT_IN_A_ROW = 16
