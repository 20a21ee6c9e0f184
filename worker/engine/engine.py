"""The scoring engine: requests in, calibrated scores out, one stage of one batch per step.

READ FIRST: `ScoringEngine.step` names what happens; `scheduler` decides, `runner` executes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.calibration import ExitCalibration
from models.exit_model import ExitModel
from models.prompt import Prompt
from worker.engine.cost import CostTable
from worker.engine.exits import leaving
from worker.engine.flight import Flight
from worker.engine.prefix_cache import PrefixCache
from worker.engine.records import (
    CONFIDENT,
    DEADLINE,
    FINAL,
    GRAPH,
    EngineCounters,
    EngineLoad,
    EngineResult,
    EngineSettings,
    Trace,
    Work,
)
from worker.engine.request import Request, parts_of
from worker.engine.runner import StageRunner
from worker.engine.scheduler import Entry, next_batch, order_of, out_of_time
from worker.engine.warm_up import measure_stages


class ScoringEngine:
    """Scores requests stage by stage; owned by one thread.

    Args:
        model: the exit model; the engine takes it over.
        calibration: what its heads' logits mean.
        settings: how to run.
        clock: monotonic seconds, the clock of deadlines.

    Raises:
        ValueError: calibration and model differ in their number of heads.
    """

    def __init__(
        self,
        model: ExitModel,
        calibration: ExitCalibration,
        settings: EngineSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if calibration.heads != len(model.config.exit_layers):
            raise ValueError(f"calibration for {calibration.heads} heads, model with {len(model.config.exit_layers)}")
        self._calibration = replace(calibration, criterion=settings.criterion or calibration.criterion)
        self._settings = settings
        self._clock = clock
        self._exit_layers = model.config.exit_layers
        self._runner = StageRunner(model, settings)
        self._costs: CostTable | None = None
        self._flights: dict[int, tuple[Flight, Request]] = {}
        self._finished: list[EngineResult] = []
        self._tickets = 0
        self.counters = EngineCounters()

    def submit(self, work: Work) -> None:
        """Take in a request; the next step may already run it.

        Raises:
            ValueError: its prompt is longer than the model can read, or has an empty prefix or suffix.
        """
        self._check(work.prompt)
        request = Request(work, self._exit_layers)
        self.counters.requests += 1
        if not work.prompt.suffixes:
            self._finished.append(request.result())
            return
        parts = parts_of(work.prompt, self._settings.max_batch_tokens)
        request.parts_left = len(parts)
        submitted_s = self._clock()
        order_s = order_of(work.deadline_s, submitted_s, self._settings.patience_s)
        for candidates in parts:
            entry = Entry(self._tickets, work.deadline_s, order_s, work.quality_floor, 0, 0)
            flight = Flight(entry, work.prompt, candidates)
            self._flights[entry.ticket] = flight, request
            self._tickets += 1
            # The next part of a large request steps back by what this one takes: others come in between.
            order_s += self._remaining_s(entry)

    def step(self, threshold: float, now_s: float) -> list[EngineResult]:
        """Run one stage for the most urgent batch.

        Args:
            threshold: the exit threshold in force.
            now_s: the engine's clock now.

        Returns:
            Requests that have been answered, the last of their candidates in this step.
        """
        started_s = self._clock()
        self._force_out(now_s)
        batch = next_batch(self._entries(), now_s, self._settings.max_batch_tokens, self._stage_cost)
        if batch:
            flights = [self._flights[entry.ticket][0] for entry in batch]
            self._run_stage(flights)
            self._let_out(flights, threshold)
        finished, self._finished = self._finished, []
        self.counters.steps += 1
        self.counters.step_s += self._clock() - started_s
        return finished

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self._flights or self._finished)

    def load(self) -> EngineLoad:
        """What is in the engine, in the order in which it will be run."""
        entries = sorted(self._entries(), key=lambda entry: entry.urgency)
        return EngineLoad(
            depth=np.array([entry.depth for entry in entries], np.int64),
            prefix_tokens=np.array([entry.prefix_tokens for entry in entries], np.int64),
            suffix_tokens=np.array([entry.suffix_tokens for entry in entries], np.int64),
            deadline_s=np.array([entry.deadline_s for entry in entries], np.float64),
        )

    def warm_up(self) -> None:
        """Measure every stage at several sizes: kernels get built and the cost table filled."""
        # The made-up prompts begin alike: kept prefixes would make stages look cheaper than they are.
        cache, self._runner.cache = self._runner.cache, PrefixCache(0)
        self._costs = measure_stages(self._runner, self._settings, self._clock)
        self._runner.cache = cache

    @property
    def cost_table(self) -> CostTable:
        """Predicted seconds by stage and tokens, kept current.

        Raises:
            RuntimeError: `warm_up` has not been called.
        """
        if self._costs is None:
            raise RuntimeError("the cost table is measured by warm_up(), which has not been called")
        return self._costs

    def trace(self, prompt: Prompt) -> Trace:
        """Every head's view of every candidate, at full depth and outside the queue."""
        self._check(prompt)
        flights = [
            Flight(Entry(-1, np.inf, np.inf, "final_head", 0, 0), prompt, candidates)
            for candidates in parts_of(prompt, self._settings.max_batch_tokens)
        ]
        for flight in flights:
            for _ in self._exit_layers:
                logits, _ = self._runner.run([flight])
                flight.arrive(logits)
        paths = np.concatenate([np.zeros((0, len(self._exit_layers))), *(flight.logits for flight in flights)])
        heads = range(self._calibration.heads)
        return Trace(
            logits=paths,
            ctr=np.stack([self._calibration.ctr(head, paths[:, head]) for head in heads], axis=1),
            confidence=np.stack([self._calibration.confidence(head, paths[:, : head + 1]) for head in heads], axis=1),
        )

    def _check(self, prompt: Prompt) -> None:
        prefix, lengths = len(prompt.prefix), prompt.suffix_lengths
        if len(lengths) and (prefix == 0 or not lengths.all()):
            raise ValueError("a prompt needs at least one token in its prefix and in every suffix")
        longest = prefix + int(lengths.max(initial=0))
        if longest > self._runner.max_positions:
            raise ValueError(f"a prompt of {longest} tokens; this model reads at most {self._runner.max_positions}")

    def _entries(self) -> list[Entry]:
        return [flight.entry for flight, _ in self._flights.values()]

    def _stage_cost(self, stage: int, tokens: int) -> float:
        return 0.0 if self._costs is None else self._costs.seconds(stage, tokens) * self._settings.headroom

    def _remaining_s(self, entry: Entry) -> float:
        return 0.0 if self._costs is None else self._costs.seconds_to_end(entry.depth, entry.tokens)

    def _force_out(self, now_s: float) -> None:
        """Answer from the deepest head reached (or leave to the graph) whoever has no time for another stage."""
        for entry in out_of_time(self._entries(), now_s, self._stage_cost):
            flight, request = self._flights[entry.ticket]
            everyone = np.ones(len(flight.candidates), bool)
            if entry.depth == 0:
                self._answer(flight, request, everyone, np.zeros(len(everyone)), GRAPH)
            else:
                confidence = self._calibration.confidence(entry.depth - 1, flight.logits)
                self._answer(flight, request, everyone, confidence, DEADLINE)

    def _run_stage(self, flights: Sequence[Flight]) -> None:
        """One stage for flights of equal depth: their heads' logits, their hidden rows, the time it took."""
        stage = flights[0].entry.depth
        started_s = self._clock()
        logits, tokens = self._runner.run(flights)
        elapsed_s = self._clock() - started_s
        full_layers = self._runner.full_layers[stage]
        for flight, own_tokens, part in zip(flights, tokens, np.split(logits, _ends(flights)), strict=True):
            _, request = self._flights[flight.entry.ticket]
            token_layers = own_tokens * full_layers + len(part)
            request.ran(token_layers, elapsed_s)
            self.counters.token_layers_run += token_layers
            flight.arrive(part)
        self.counters.model_s = self._runner.model_s
        self.counters.prefix_hits, self.counters.prefix_misses = self._runner.cache.hits, self._runner.cache.misses
        if self._costs is not None:
            self._costs.observe(stage, sum(tokens), elapsed_s)

    def _let_out(self, flights: Sequence[Flight], threshold: float) -> None:
        """At a head: answer the candidates that are confident enough, keep the others."""
        head = flights[0].entry.depth - 1
        is_final = head == self._calibration.heads - 1
        confidence = self._calibration.confidence(head, np.concatenate([flight.logits for flight in flights]))
        for flight, part in zip(flights, np.split(confidence, _ends(flights)), strict=True):
            _, request = self._flights[flight.entry.ticket]
            out = leaving(part, threshold, is_final=is_final, floor=flight.entry.floor)
            self._answer(flight, request, out, part, FINAL if is_final else CONFIDENT)

    def _answer(
        self,
        flight: Flight,
        request: Request,
        out: NDArray[np.bool_],
        confidence: NDArray[np.float64],
        made_by: int,
    ) -> None:
        """Record the answers of a flight's candidates that leave; finish the request with its last one."""
        depth = flight.entry.depth
        ctr = self._calibration.ctr(depth - 1, flight.logits[out, -1]) if depth else np.nan
        exit_layer = self._exit_layers[depth - 1] if depth else 0
        request.answer(flight.candidates[out], ctr, exit_layer, confidence[out], made_by)
        if not out.all():
            flight.keep(~out)
            return
        del self._flights[flight.entry.ticket]
        request.parts_left -= 1
        if request.parts_left == 0:
            self.counters.token_layers_full += request.token_layers_full
            self._finished.append(request.result())


def _ends(flights: Sequence[Flight]) -> NDArray[np.int64]:
    """Where to split what was computed for several flights' candidates one behind the other."""
    return np.cumsum([len(flight.candidates) for flight in flights])[:-1]
