"""What one model does for a request before its engine can score it: retrieval, prompt, and the graph score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.evidence import Evidence
from models.prompt import Prompt
from runtime.clock import Clock
from worker.engine.prompt_source import Places
from worker.engine.timeline import Interval
from worker.job import Job
from worker.model import ServingModel


class Preparation:
    """The `PromptSource` of one model's engine; in the compute thread.

    Args:
        model: whose tables, prompts and graph are asked.
        clock: measures the steps.
    """

    def __init__(self, model: ServingModel, clock: Clock) -> None:
        self._model = model
        self._clock = clock

    def prepare(self, job: Job, places: Places) -> Prompt:
        """Retrieves the evidence for some of a request's candidates and builds their prompt."""
        evidence = self._retrieve(job, places)
        return self._build_prompt(job, evidence)

    def graph_ctr(self, asked: Sequence[tuple[Job, Places]]) -> list[NDArray[np.float64]]:
        """Rates from the graph alone, without evidence and prompt."""
        for job, _ in asked:
            self._note_embedding(job)
        return self._model.graph.score([(job.request.user_id, job.items_at(places)) for job, places in asked])

    def _retrieve(self, job: Job, places: Places) -> Evidence:
        started_s = self._clock.monotonic()
        evidence = self._model.retriever.retrieve(job.request.user_id, job.items_at(places))
        job.user = evidence.user
        job.evidence.update(zip(places.tolist(), evidence.candidates, strict=True))
        self._note_embedding(job)
        retrieval = Interval(started_s, self._clock.monotonic())
        job.retrieve_s += retrieval.seconds
        if job.timeline is not None:
            job.timeline.retrievals.append(retrieval)
        return evidence

    def _build_prompt(self, job: Job, evidence: Evidence) -> Prompt:
        started_s = self._clock.monotonic()
        prompt = self._model.prompts.build(evidence)
        building = Interval(started_s, self._clock.monotonic())
        job.prompt_s += building.seconds
        if job.timeline is not None:
            job.timeline.prompts.append(building)
        return prompt

    def _note_embedding(self, job: Job) -> None:
        """Which embedding of the user the job was scored with; of a request in parts, the last one counts."""
        stamp = self._model.tables.users.embedding_stamp(job.request.user_id)
        if stamp is not None:
            job.embedding_version, job.embedding_time_ms = stamp
