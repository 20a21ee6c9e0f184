"""The scoring engine: requests wait here, are prepared in their turn and scored stage by stage, one batch per step.

READ FIRST: `ScoringEngine.step`. `queue`, `scheduler` and `prefill` decide, `transformer.runner` executes.

Depth counts heads: a part at depth d has passed d of them. Stage d is the layers between head d - 1 and head d.

Whatever raises, every request is answered and `step` goes on. A batch that fails is halved until the part that makes it
fail is alone; that part, and every candidate whose logit is no number, gets the graph's rate, the others their heads'.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, Generic, TypeVar, cast

import numpy as np
import structlog
from numpy.typing import NDArray

from models.calibration import ExitCalibration
from models.exit_model import ExitModel
from models.prompt import Prompt
from worker.budget.controller import FixedThreshold, Threshold
from worker.engine.batch import BatchRun, by_part, full_token_layers, note_run
from worker.engine.cost import NoCosts, correct_stages, measure_stages
from worker.engine.counters import EngineCounters
from worker.engine.graph_fallback import GraphFallback
from worker.engine.isolation import isolated
from worker.engine.part import Part
from worker.engine.prefill import chunk_due
from worker.engine.prompt_source import Floats, PromptSource, ReadyPrompts, check_prompt
from worker.engine.queue import RequestQueue, StageCosts
from worker.engine.scheduler import leaving
from worker.engine.scoring_job import CONFIDENT, DEADLINE, FINAL, GRAPH, ScoringJob
from worker.engine.settings import EngineSettings
from worker.engine.timeline import Interval
from worker.engine.trace import Trace, trace_steps
from worker.engine.transformer.runner import StageRunner
from worker.steps import to_its_end

OLD_COSTS_S: Final = 1.0
"""Once no stage has run for so long, requests turned away for its costs have them measured again."""
log = structlog.get_logger(__name__)
JobT = TypeVar("JobT", bound=ScoringJob)


class ScoringEngine(Generic[JobT]):
    """Scores requests stage by stage; owned by one thread.

    Args:
        model: the exit model; the engine takes it over (device, number format).
        calibration: what its heads' logits mean.
        settings: how to run.
        controller: chooses the exit threshold; by default candidates leave at the calibrated base threshold.
        costs: what stages take, where that is known; `warm_up` measures it.
        clock: monotonic seconds, the clock of deadlines.
        owns_model: nobody else computes with the model: its layers are released, so that memory holds weights once.

    Attributes:
        controller: as given; may be replaced between two steps.
        counters: what was done so far.
        exit_layers: decoder layers up to each head.

    Raises:
        ValueError: calibration and model differ in their number of heads.
    """

    def __init__(
        self,
        model: ExitModel,
        calibration: ExitCalibration,
        settings: EngineSettings,
        controller: Threshold | None = None,
        costs: StageCosts | None = None,
        clock: Callable[[], float] = time.monotonic,
        owns_model: bool = False,
    ) -> None:
        if calibration.heads != len(model.config.exit_layers):
            raise ValueError(f"calibration for {calibration.heads} heads, model with {len(model.config.exit_layers)}")
        self.controller: Threshold = controller or FixedThreshold(calibration.base_threshold)
        self.counters = EngineCounters()
        self._calibration = replace(calibration, criterion=settings.criterion or calibration.criterion)
        self._settings = settings
        self._clock = clock
        self.exit_layers: Sequence[int] = model.config.exit_layers
        self._runner = StageRunner(model, settings, owns_model=owns_model)
        self._queue = RequestQueue(settings, costs or NoCosts())
        # The rate of average features: what a candidate is worth of which nothing is known.
        self._fallback: GraphFallback[JobT] = GraphFallback(
            float(calibration.graph_ctr(calibration.graph_mean)), self.counters
        )
        self._threshold = self.controller.threshold
        self._measured_s = -math.inf
        self._finished: list[JobT] = []

    def enqueue(self, job: JobT, *, ask_heads: bool = True) -> None:
        """Takes in a request; the next step may already run it. Without heads the graph answers it."""
        self.counters.requests += 1
        if not len(job):
            self._finish(job)
            return
        try:
            if ask_heads:
                self._queue.enqueue(job)
            else:
                self._fallback.add(job, np.arange(len(job)))
        except Exception as error:  # noqa: BLE001 - no request may end a worker
            self._note_fault(job.place, error)
            self._fallback.add(job, np.arange(len(job)))

    def step(self, source: PromptSource[JobT], margin_s: float = 0.0) -> list[JobT]:
        """One round: prepares what is next in turn, runs one stage of the most urgent batch, lets out who may leave.

        Args:
            source: prepares prompts, and scores from the graph what no head can answer in time.
            margin_s: seconds that scores need until their reader has them.

        Returns:
            The requests whose last candidate was answered in this round.
        """
        with self._last_resort():
            unmeetable = self._queue.take_unmeetable(self._clock() + margin_s, self.controller.floor_share)
            self._leave_to_graph(unmeetable)
            if unmeetable and self._clock() - self._measured_s >= OLD_COSTS_S:
                self._measure_again()
            self._prepare(source, self._settings.prepare_ahead_tokens)
            now_s = self._clock() + margin_s
            self._threshold = self.controller.update(now_s, self._queue.demands())
            self._force_out(now_s)
        # Before the batch, whose stage may outlast their deadlines.
        self._score_from_graph(source)
        with self._last_resort():
            self._run_batch(self._clock() + margin_s)
        finished, self._finished = self._finished, []
        return finished

    def take_unbegun(self) -> list[JobT]:
        """Gives up the requests that no work has begun on, the most urgent first: another engine can take them in."""
        asked = self._fallback.jobs
        return cast("list[JobT]", self._queue.take_jobs(lambda job: job.is_unbegun and job not in asked))

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(len(self._queue) or len(self._fallback) or self._finished)

    @property
    def waiting(self) -> int:
        """Parts of requests that work has not begun on."""
        return self._queue.waiting + len(self._fallback)

    def score(self, prompts: Sequence[Prompt]) -> list[ScoringJob]:
        """Scores ready-made prompts, all in flight at once and without deadlines, for evaluation and benchmarks.

        Returns:
            A finished job for each prompt, in their order.

        Raises:
            RuntimeError: a candidate could not be scored by any head; the log says why.
        """
        source = ReadyPrompts(prompts)
        for job in source.jobs:
            self.enqueue(cast("JobT", job))
        self._prepare(source, math.inf)
        while self.busy:
            self.step(source)
        if failed := sum(bool((job.made_by == GRAPH).any()) for job in source.jobs):
            raise RuntimeError(f"{failed} of {len(prompts)} prompts could not be scored; the log says why")
        return source.jobs

    def trace(self, prompt: Prompt) -> Trace:
        """Every head's view of every candidate, at full depth and outside the queue."""
        return to_its_end(self.trace_steps(prompt))

    def trace_steps(self, prompt: Prompt) -> Generator[int, None, Trace]:
        """The same a stage at a time, for a thread that also serves: see `worker.engine.trace`.

        Raises:
            ValueError: the prompt is longer than the model reads.
        """
        check_prompt(prompt, len(prompt.suffixes), self._runner.max_positions)
        return trace_steps(self._runner, self._calibration, prompt, self._settings.max_batch_tokens)

    def warm_up(self) -> None:
        """Measures every stage at several sizes: kernels get built and the cost table filled."""
        to_its_end(self.warm_up_steps())

    def warm_up_steps(self) -> Generator[None, None, None]:
        """The same a stage at a time, for a thread that may be asked to give it up."""
        self._queue.costs = yield from measure_stages(self._runner, self._settings, self._clock)

    def correction_steps(self) -> Generator[None, None, None]:
        """Corrects costs that were measured elsewhere: in another thread, or beside other work. One run at a time."""
        yield from correct_stages(self._runner, self.costs, self._clock, rounds=3)

    @property
    def costs(self) -> StageCosts:
        """Predicted seconds by stage and tokens, kept current; without `warm_up` nothing is predicted to take time."""
        return self._queue.costs

    def _measure_again(self) -> None:
        """Costs are learned from stages that run. Where they seem too long for every request none runs, and a slow time
        that is over would be believed for ever.
        """
        next(correct_stages(self._runner, self.costs, self._clock))
        self._measured_s = self._clock()

    def _prepare(self, source: PromptSource[JobT], ahead_tokens: float) -> None:
        """Prepares the most urgent parts. One that cannot be prepared is left to the graph; no other is affected."""
        while (part := self._queue.take_next(ahead_tokens)) is not None:
            started_s = self._clock()
            job = cast("JobT", part.job)
            if job.begun_s is None:
                job.begun_s = started_s
            try:
                prompt = source.prepare(job, part.places)
                check_prompt(prompt, len(part), self._runner.max_positions)
                taken = self._queue.put_prepared(part, prompt, self._clock() - started_s)
                job.token_layers_full += full_token_layers(taken, self.exit_layers)
            except Exception as error:  # noqa: BLE001 - this part's alone
                self._note_fault(job.place, error)
                self._leave_to_graph([part])

    def _run_batch(self, now_s: float) -> None:
        started_s = self._clock()
        batch = self._queue.next_batch(now_s)
        if len(batch) != 1 or not self._fill_prefix(batch[0]):
            for parts, stage in isolated(batch, self._run_stage, self._give_up):
                self._pass_head(parts, stage)
                self._let_out([part for part in parts if len(part)])
        self.counters.model_s = self._runner.model_s
        self._runner.cache.count_into(self.counters)
        self.counters.steps += 1
        self.counters.step_s += self._clock() - started_s

    def _force_out(self, now_s: float) -> None:
        """Answers what has no time for another stage from the deepest head reached, or leaves it to the graph."""
        for part in self._queue.out_of_time(now_s):
            if part.depth == 0:
                self._queue.remove(part)
                self._leave_to_graph([part])
            else:
                confidence = self._calibration.confidence(part.depth - 1, part.logits)
                self._answer(part, np.ones(len(part), np.bool_), confidence, DEADLINE)

    def _fill_prefix(self, part: Part) -> bool:
        """Runs a chunk of a long prefix in place of a stage; whether there was one to run."""
        started_s, most_tokens = self._clock(), self._queue.step_tokens(part.depth)
        if part.tokens <= most_tokens:
            return False
        try:
            if part.depth == 0:
                self._runner.look_up(part)
            if not (chunk := chunk_due(part, most_tokens)):
                return False
            tokens = self._runner.fill(part, chunk)
        except Exception as error:  # noqa: BLE001 - this part's alone
            self._give_up(part, error)
            return True
        self._measured_s = self._clock()
        full_layers, ran = self._runner.full_layers[part.depth], Interval(started_s, self._measured_s)
        self.counters.token_layers_run += note_run(part, tokens, full_layers, 0, ran)
        self._queue.step_back(part, tokens)
        return True

    def _run_stage(self, batch: Sequence[Part]) -> BatchRun:
        """One stage for parts of equal depth."""
        started_s = self._clock()
        logits, tokens = self._runner.run(batch)
        return BatchRun(logits, tokens, Interval(started_s, self._clock()))

    def _give_up(self, part: Part, error: Exception) -> None:
        """Leaves a part whose stage fails to the graph."""
        self._note_fault(part.job.place, error)
        self._queue.remove(part)
        self._leave_to_graph([part])

    def _pass_head(self, parts: Sequence[Part], run: BatchRun) -> None:
        """Hands every part its head's logits. Candidates whose logit is no number are left to the graph."""
        stage = parts[0].depth
        self.costs.observe(stage, sum(run.tokens), run.ran.seconds)
        self._measured_s = self._clock()
        full_layers = self._runner.full_layers[stage]
        for part, tokens, own_logits in zip(parts, run.tokens, by_part(run.logits, parts), strict=True):
            self.counters.token_layers_run += note_run(part, tokens, full_layers, len(own_logits), run.ran)
            part.pass_head(own_logits)
            finite = np.isfinite(own_logits)
            if not finite.all():
                self._note_fault(part.job.place, ValueError(f"{(~finite).sum()} logits of the model are no numbers"))
                self._fallback.add(cast("JobT", part.job), part.places[~finite])
                self._runner.keep(part, finite)
                if not len(part):
                    self._queue.remove(part)

    def _let_out(self, parts: Sequence[Part]) -> None:
        """At a head: answers the candidates that are confident enough, keeps the others."""
        if not parts:
            return
        head = parts[0].depth - 1
        is_final = head == self._calibration.heads - 1
        confidence = self._calibration.confidence(head, np.concatenate([part.logits for part in parts]))
        for part, own in zip(parts, by_part(confidence, parts), strict=True):
            out = leaving(own, self._threshold, is_final=is_final, floor=part.job.quality_floor)
            self._answer(part, out, own, FINAL if is_final else CONFIDENT)

    def _answer(self, part: Part, out: NDArray[np.bool_], confidence: Floats, made_by: int) -> None:
        """Records the answers of a part's candidates that leave at the head it has reached."""
        head = part.depth - 1
        ctr = self._calibration.ctr(head, part.logits[out, -1])
        part.job.answer(part.places[out], ctr, self.exit_layers[head], confidence[out], made_by)
        if out.all():
            self._queue.remove(part)
            self._finish(cast("JobT", part.job))
        elif out.any():
            self._runner.keep(part, ~out)

    def _leave_to_graph(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self._fallback.add(cast("JobT", part.job), part.places)

    def _score_from_graph(self, source: PromptSource[JobT]) -> None:
        for job in self._fallback.answer(source, self._settings.graph_batch):
            self._finish(job)

    @contextmanager
    def _last_resort(self) -> Iterator[None]:
        """A fault that cannot be blamed on one part: everything in the queue is left to the graph, so that the same
        fault cannot come back with the same parts for ever.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - nothing that a batch does may end a worker
            self._note_fault(f"all of {len(self._queue)} parts in the queue", error)
            self._leave_to_graph(self._queue.take_all())

    def _note_fault(self, place: str, error: Exception) -> None:
        self.counters.faults += 1
        log.error("answered from the graph: scoring failed", place=place, reason=repr(error), exc_info=error)

    def _finish(self, job: JobT) -> None:
        """Hands the job back with its last answer."""
        if not job.unanswered:
            job.threshold = self._threshold
            job.scored_s = self._clock()
            self.counters.token_layers_full += job.token_layers_full
            self._finished.append(job)
