"""The model that new requests get, and the one before it until it has finished what it began.

A request is answered by one model, and its scores tell which. The swap takes place between two rounds of the compute
thread: requests that no work has begun on go to the new model, those in progress stay with theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.clock import Clock
from worker.job import Job
from worker.model import ServingModel
from worker.preparation import Preparation


@dataclass(frozen=True, slots=True)
class _Scorer:
    model: ServingModel
    preparation: Preparation


class Serving:
    """Models at work. Owned by the compute thread; `model` may be read from any.

    Args:
        model: the first.
        clock: measures what is done for requests.
    """

    def __init__(self, model: ServingModel, clock: Clock) -> None:
        self._clock = clock
        self._scorer = _Scorer(model, Preparation(model, clock))
        self._retiring: list[_Scorer] = []

    @property
    def model(self) -> ServingModel:
        """The one that new requests get."""
        return self._scorer.model

    @property
    def is_busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self._retiring) or self.model.engine.busy

    def enqueue(self, job: Job) -> None:
        """Takes in a request."""
        model = self.model
        job.model_version, job.exit_layers = model.version, model.engine.exit_layers
        model.engine.enqueue(job, ask_heads=not job.graph_only)

    def step(self, margin_s: float) -> list[Job]:
        """One round of each model at work.

        Args:
            margin_s: seconds that scores need until their reader has them.

        Returns:
            The requests whose last candidate was answered.
        """
        finished = []
        for scorer in (*self._retiring, self._scorer):
            finished += scorer.model.engine.step(scorer.preparation, margin_s)
        if self._retiring:
            self._retiring = [scorer for scorer in self._retiring if scorer.model.engine.busy]
        return finished

    def swap(self, model: ServingModel) -> None:
        """Gives new requests to another model from now on, and those that no work has begun on."""
        before = self._scorer
        self._scorer = _Scorer(model, Preparation(model, self._clock))
        self._retiring.append(before)
        for job in before.model.engine.take_unbegun():
            self.enqueue(job)
