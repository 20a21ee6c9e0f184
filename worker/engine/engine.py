"""The scoring engine: requests wait here, are prepared in their turn and scored stage by stage, one batch per step.

READ FIRST: `ScoringEngine.step` names what happens. `queue` and `scheduler` decide, `transformer.runner` executes.

Depth counts heads: a part at depth d has passed d of them. Stage d is the layers between head d - 1 and head d.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar, cast

import numpy as np
import structlog
from numpy.typing import NDArray

from models.calibration import ExitCalibration
from models.exit_model import ExitModel
from models.prompt import Prompt
from worker.budget.controller import FixedThreshold, Threshold
from worker.engine.cost import NoCosts, measure_stages
from worker.engine.part import Part
from worker.engine.queue import RequestQueue, StageCosts, first_fitting
from worker.engine.scheduler import leaving
from worker.engine.scoring_job import CONFIDENT, DEADLINE, FINAL, GRAPH, ScoringJob
from worker.engine.settings import EngineSettings
from worker.engine.transformer.prefix_cache import PrefixCache
from worker.engine.transformer.runner import StageRunner

log = structlog.get_logger(__name__)
Floats = NDArray[np.float64]
Places = NDArray[np.int64]


JobT = TypeVar("JobT", bound=ScoringJob)
JobT_contra = TypeVar("JobT_contra", bound=ScoringJob, contravariant=True)


class PromptSource(Protocol[JobT_contra]):
    """What the engine asks for when a request's turn comes."""

    def prepare(self, job: JobT_contra, places: Places) -> Prompt:
        """The prompt for some of a request's candidates, with a suffix for each."""

    def graph_ctr(self, asked: Sequence[tuple[JobT_contra, Places]]) -> list[Floats]:
        """Rates from the graph alone, for candidates that no head can answer in time."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Every head's view of every candidate of one prompt, at full depth."""

    logits: Floats  # (n, heads) raw
    ctr: Floats  # (n, heads)
    confidence: Floats  # (n, heads)


@dataclass(slots=True)
class EngineCounters:
    """Running totals since the start, for metrics and benchmarks."""

    steps: int = 0
    requests: int = 0
    faults: int = 0
    """Parts answered from the graph because preparing them failed."""
    token_layers_run: int = 0
    token_layers_full: int = 0
    step_s: float = 0.0
    """Seconds inside the engine: batching, model, exits. Preparation and graph scores are not part of it."""
    model_s: float = 0.0
    """Of these, seconds inside embedding, layers and heads (warm-up and traces count here too)."""
    prefix_hits: int = 0
    prefix_misses: int = 0


class ScoringEngine(Generic[JobT]):
    """Scores requests stage by stage; owned by one thread.

    Args:
        model: the exit model; the engine takes it over.
        calibration: what its heads' logits mean.
        settings: how to run.
        controller: chooses the exit threshold; by default candidates leave at the calibrated base threshold.
        costs: what stages take, where that is known; `warm_up` measures it.
        clock: monotonic seconds, the clock of deadlines.

    Attributes:
        controller: as given; may be replaced between two steps.
        counters: what was done so far.

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
    ) -> None:
        if calibration.heads != len(model.config.exit_layers):
            raise ValueError(f"calibration for {calibration.heads} heads, model with {len(model.config.exit_layers)}")
        self.controller: Threshold = controller or FixedThreshold(calibration.base_threshold)
        self.counters = EngineCounters()
        self._calibration = replace(calibration, criterion=settings.criterion or calibration.criterion)
        self._settings = settings
        self._clock = clock
        self._exit_layers = model.config.exit_layers
        self._runner = StageRunner(model, settings)
        self._queue = RequestQueue(settings, costs or NoCosts())
        self._for_graph: deque[tuple[JobT, Places]] = deque()
        self._finished: list[JobT] = []

    def enqueue(self, job: JobT) -> None:
        """Takes in a request; the next step may already run it."""
        self.counters.requests += 1
        if len(job):
            self._queue.enqueue(job)
        else:
            self._finish(job, self.controller.threshold)

    def step(self, source: PromptSource[JobT], margin_s: float = 0.0) -> list[JobT]:
        """One round: prepares what is next in turn, runs one stage of the most urgent batch, lets out who may leave.

        Args:
            source: prepares prompts, and scores from the graph what no head can answer in time.
            margin_s: seconds that scores need until their reader has them.

        Returns:
            The requests whose last candidate was answered in this round.
        """
        self._leave_to_graph(self._queue.take_unmeetable(self._clock() + margin_s, self.controller.floor_share))
        self._prepare(source, self._settings.prepare_ahead_tokens)
        now_s = self._clock() + margin_s
        threshold = self.controller.update(now_s, self._queue.demands())
        self._force_out(now_s, threshold)
        self._score_from_graph(source, threshold)
        self._run_batch(now_s, threshold)
        finished, self._finished = self._finished, []
        return finished

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(len(self._queue) or self._for_graph or self._finished)

    @property
    def waiting(self) -> int:
        """Parts of requests that work has not begun on."""
        return self._queue.waiting + len(self._for_graph)

    def score(self, prompts: Sequence[Prompt]) -> list[ScoringJob]:
        """Scores ready-made prompts, all in flight at once and without deadlines, for evaluation and benchmarks.

        Returns:
            A finished job for each prompt, in their order.
        """
        source = _ReadyPrompts(prompts)
        for job in source.jobs:
            self.enqueue(cast("JobT", job))
        self._prepare(source, math.inf)
        while self.busy:
            self.step(source)
        return source.jobs

    def trace(self, prompt: Prompt) -> Trace:
        """Every head's view of every candidate, at full depth and outside the queue."""
        self._check(prompt)
        heads = range(self._calibration.heads)
        logits = [np.zeros((0, len(heads)))]
        rest = prompt
        while rest.suffixes:
            fitting = first_fitting(rest, self._settings.max_batch_tokens)
            part = Part.of(Prompt(rest.prefix, rest.suffixes[:fitting]))
            for _ in heads:
                part.pass_head(self._runner.run([part])[0])
            logits.append(part.logits)
            rest = Prompt(rest.prefix, rest.suffixes[fitting:])
        paths = np.concatenate(logits)
        return Trace(
            logits=paths,
            ctr=np.stack([self._calibration.ctr(head, paths[:, head]) for head in heads], axis=1),
            confidence=np.stack([self._calibration.confidence(head, paths[:, : head + 1]) for head in heads], axis=1),
        )

    def warm_up(self) -> None:
        """Measures every stage at several sizes: kernels get built and the cost table filled."""
        # The made-up prompts begin alike: a prefix cache would make stages look cheaper than they are.
        cache, self._runner.cache = self._runner.cache, PrefixCache(0)
        self._queue.costs = measure_stages(self._runner, self._settings, self._clock)
        self._runner.cache = cache

    @property
    def costs(self) -> StageCosts:
        """Predicted seconds by stage and tokens, kept current; without `warm_up` nothing is predicted to take time."""
        return self._queue.costs

    def _prepare(self, source: PromptSource[JobT], ahead_tokens: float) -> None:
        """Prepares the most urgent parts. One that cannot be prepared is left to the graph; no other is affected."""
        while (part := self._queue.take_next(ahead_tokens)) is not None:
            started_s = self._clock()
            job = cast("JobT", part.job)
            if job.begun_s is None:
                job.begun_s = started_s
            try:
                prompt = source.prepare(job, part.places)
                self._check(prompt)
            except Exception:
                self.counters.faults += 1
                log.exception("answered from the graph: preparing the request failed")
                self._leave_to_graph([part])
            else:
                taken = self._queue.put_prepared(part, prompt, self._clock() - started_s)
                job.token_layers_full += self._full_depth(taken)

    def _run_batch(self, now_s: float, threshold: float) -> None:
        started_s = self._clock()
        batch = self._queue.next_batch(now_s)
        if batch:
            self._run_stage(batch)
            self._let_out(batch, threshold)
        self.counters.steps += 1
        self.counters.step_s += self._clock() - started_s

    def _force_out(self, now_s: float, threshold: float) -> None:
        """Answers what has no time for another stage from the deepest head reached, or leaves it to the graph."""
        for part in self._queue.out_of_time(now_s):
            if part.depth == 0:
                self._queue.remove(part)
                self._leave_to_graph([part])
            else:
                confidence = self._calibration.confidence(part.depth - 1, part.logits)
                self._answer(part, np.ones(len(part), np.bool_), confidence, DEADLINE, threshold)

    def _run_stage(self, batch: Sequence[Part]) -> None:
        """One stage for parts of equal depth: their heads' logits, their hidden rows, the time it took."""
        stage = batch[0].depth
        started_s = self._clock()
        logits, tokens = self._runner.run(batch)
        elapsed_s = self._clock() - started_s
        full_layers = self._runner.full_layers[stage]
        for part, own_tokens, own_logits in zip(batch, tokens, np.split(logits, _ends(batch)), strict=True):
            token_layers = own_tokens * full_layers + len(own_logits)
            part.job.token_layers_run += token_layers
            part.job.infer_s += elapsed_s
            self.counters.token_layers_run += token_layers
            part.pass_head(own_logits)
        self.counters.model_s = self._runner.model_s
        self.counters.prefix_hits, self.counters.prefix_misses = self._runner.cache.hits, self._runner.cache.misses
        self.costs.observe(stage, sum(tokens), elapsed_s)

    def _let_out(self, batch: Sequence[Part], threshold: float) -> None:
        """At a head: answers the candidates that are confident enough, keeps the others."""
        head = batch[0].depth - 1
        is_final = head == self._calibration.heads - 1
        confidence = self._calibration.confidence(head, np.concatenate([part.logits for part in batch]))
        for part, own in zip(batch, np.split(confidence, _ends(batch)), strict=True):
            out = leaving(own, threshold, is_final=is_final, floor=part.job.quality_floor)
            self._answer(part, out, own, FINAL if is_final else CONFIDENT, threshold)

    def _answer(self, part: Part, out: NDArray[np.bool_], confidence: Floats, made_by: int, threshold: float) -> None:
        """Records the answers of a part's candidates that leave at the head it has reached."""
        head = part.depth - 1
        ctr = self._calibration.ctr(head, part.logits[out, -1])
        part.job.answer(part.places[out], ctr, self._exit_layers[head], confidence[out], made_by)
        if out.all():
            self._queue.remove(part)
            self._finish(cast("JobT", part.job), threshold)
        elif out.any():
            self._runner.keep(part, ~out)

    def _leave_to_graph(self, parts: Sequence[Part]) -> None:
        self._for_graph.extend((cast("JobT", part.job), part.places) for part in parts)

    def _score_from_graph(self, source: PromptSource[JobT], threshold: float) -> None:
        """The ladder's last rung, many parts at once; before the batch, whose stage may outlast their deadlines."""
        count = min(len(self._for_graph), self._settings.graph_batch)
        batch = [self._for_graph.popleft() for _ in range(count)]
        if batch:
            for (job, places), ctr in zip(batch, source.graph_ctr(batch), strict=True):
                job.answer(places, ctr, 0, 0.0, GRAPH)
                self._finish(job, threshold)

    def _finish(self, job: JobT, threshold: float) -> None:
        """Hands the job back with its last answer."""
        if not job.unanswered:
            job.threshold = threshold
            job.scored_s = self._clock()
            self.counters.token_layers_full += job.token_layers_full
            self._finished.append(job)

    def _full_depth(self, prompt: Prompt) -> int:
        """Token-layers of a prompt at full depth; of the layer before a head only the answers' tokens run."""
        return (self._exit_layers[-1] - 1) * prompt.tokens + len(self._exit_layers) * len(prompt.suffixes)

    def _check(self, prompt: Prompt) -> None:
        prefix, lengths = len(prompt.prefix), prompt.suffix_lengths
        if len(lengths) and (prefix == 0 or not lengths.all()):
            raise ValueError("a prompt needs at least one token in its prefix and in every suffix")
        longest = prefix + int(lengths.max(initial=0))
        if longest > self._runner.max_positions:
            raise ValueError(f"a prompt of {longest} tokens; this model reads at most {self._runner.max_positions}")


class _ReadyPrompts:
    """A `PromptSource` of prompts that exist already, one per job."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self.jobs = [ScoringJob(len(prompt.suffixes)) for prompt in prompts]
        self._prompts = dict(zip(map(id, self.jobs), prompts, strict=True))

    def prepare(self, job: ScoringJob, places: Places) -> Prompt:
        """See `PromptSource`."""
        prompt = self._prompts[id(job)]
        return Prompt(prompt.prefix, [prompt.suffixes[place] for place in places])

    def graph_ctr(self, asked: Sequence[tuple[ScoringJob, Places]]) -> list[Floats]:
        """No graph here."""
        return [np.full(len(places), np.nan) for _, places in asked]


def _ends(batch: Sequence[Part]) -> Places:
    """Where to split what was computed for several parts' candidates one behind the other."""
    return np.cumsum([len(part) for part in batch])[:-1]
