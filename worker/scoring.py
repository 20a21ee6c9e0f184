"""What the compute thread does with jobs: who is served next, from which evidence, by which rung of the ladder."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import numpy as np
import structlog

from models.evidence import Evidence
from models.prompt import Prompt
from runtime.clock import Clock
from worker.budget import Demand
from worker.engine.records import GRAPH, EngineResult, Work
from worker.jobs import Job, Part, cut
from worker.margin import DeliveryMargin
from worker.metrics import WorkerMetrics
from worker.model import ServingModel
from worker.rows import UNKNOWN_ROW
from worker.settings import WorkerSettings
from worker.tables import Tables
from worker.waiting import PartSizes, WaitingRoom

log = structlog.get_logger(__name__)


class Scorer:
    """Owned by the compute thread.

    Args:
        settings: of the worker.
        model: the bundle that serves.
        tables: what is known.
        metrics: for faults; everything else is told by the jobs themselves.
        clock: ours.
    """

    def __init__(
        self, settings: WorkerSettings, model: ServingModel, tables: Tables, metrics: WorkerMetrics, clock: Clock
    ) -> None:
        self.model = model
        self._settings = settings.worker
        self.margin = DeliveryMargin(
            reading_s=settings.worker.reading_margin_ms / 1000,
            writing_s=_WRITING_S[settings.kafka.delivery],
            most_s=settings.worker.budget_ms / 1000 * _MOST_MARGIN,
        )
        self._tables = tables
        self._metrics = metrics
        self._clock = clock
        self._sizes = PartSizes()
        self._waiting = WaitingRoom(self._sizes, model.engine.cost_table, model.controller.floor_share)
        self._for_graph: deque[Part] = deque()
        self._in_engine: dict[int, Part] = {}
        self._keys = itertools.count()
        self._finished: list[Job] = []
        self._part_begun_s = 0.0
        self._counted = replace(model.engine.counters)

    @property
    def busy(self) -> bool:
        """Whether another round has something to do."""
        return bool(self._waiting or self._for_graph or self._in_engine)

    def admit(self, jobs: Iterable[Job]) -> None:
        """Lets new jobs wait, large ones in parts. Jobs without candidates are answered already."""
        parts: list[Part] = []
        for job in jobs:
            if not job.item_ids:
                self._finish(job)
            parts += cut(job, self._settings.part_candidates, self._settings.fair_candidates)
        if parts:
            self._waiting.add(parts)

    def answer_hopeless(self) -> None:
        """Answers from the graph what cannot reach the first head in time any more, many at once."""
        self._for_graph += self._waiting.take_hopeless(
            self._clock.monotonic(), self._engine_busy_s(), self.margin.seconds
        )
        batch = [self._for_graph.popleft() for _ in range(min(len(self._for_graph), self._settings.graph_batch))]
        self._answer_from_graph(batch)

    def next_part(self) -> Part | None:
        """The most urgent part, begun now; None while the engine has enough."""
        if not self._waiting or self._engine_tokens() >= self._settings.feed_tokens:
            return None
        part = self._waiting.take()
        self._part_begun_s = self._clock.monotonic()
        if part.job.begun_s is None:
            part.job.begun_s = self._part_begun_s
        return part

    def retrieve(self, part: Part) -> Evidence:
        """The evidence for the part's candidates."""
        started_s = self._clock.monotonic()
        evidence = self.model.retriever.retrieve(part.job.request.user_id, part.item_ids)
        part.job.evidence.update(zip(range(part.start, part.stop), evidence.candidates, strict=True))
        self._note_embedding(part.job)
        part.job.retrieve_s += self._clock.monotonic() - started_s
        return evidence

    def build_prompt(self, part: Part, evidence: Evidence) -> Prompt:
        """The part as the model reads it."""
        started_s = self._clock.monotonic()
        prompt = self.model.prompts.build(evidence)
        part.job.prompt_s += self._clock.monotonic() - started_s
        return prompt

    def submit(self, part: Part, prompt: Prompt) -> None:
        """Hands the part to the engine.

        Raises:
            ValueError: the prompt is longer than the model reads.
        """
        key = next(self._keys)
        job = part.job
        self.model.engine.submit(Work(key, prompt, job.deadline.at - self.margin.seconds, job.request.quality_floor))
        self._in_engine[key] = part
        prepare_s = self._clock.monotonic() - self._part_begun_s
        self._sizes.learn(len(part), len(prompt.prefix), int(prompt.suffix_lengths.sum()), prepare_s)

    @contextmanager
    def contained(self, part: Part) -> Iterator[None]:
        """A fault within the block, such as a prompt longer than the model reads, costs this part its heads and nobody
        else anything: it is answered from the graph, logged and counted.
        """
        try:
            yield
        except Exception:
            self._metrics.internal_errors.inc()
            log.exception("answered from the graph for a fault", request_id=part.job.request.request_id)
            self._answer_from_graph([part])

    def infer(self) -> None:
        """One step of the engine under the threshold that the time allows."""
        now_s = self._clock.monotonic()
        threshold = self.model.controller.update(now_s, self._demands())
        if not self.model.engine.busy:
            return
        results = self.model.engine.step(threshold, now_s)
        for result in results:
            self._take_over(self._in_engine.pop(result.key), result, threshold)

    def take_finished(self) -> list[Job]:
        """Jobs that have been answered since this was last asked."""
        finished, self._finished = self._finished, []
        return finished

    @property
    def waiting(self) -> int:
        """Parts that have not begun."""
        return len(self._waiting) + len(self._for_graph)

    def note_state(self) -> None:
        """Writes into the metrics what the engine has done since, the tables' sizes and the quality of their search."""
        counters = replace(self.model.engine.counters)
        self._metrics.note_engine(self._counted, counters)
        self._counted = counters
        tables, metrics = self._tables, self._metrics
        for kind, ids, index in (
            ("item", tables.items.ids, tables.item_index),
            ("user", tables.users.ids, tables.user_index),
        ):
            metrics.entries.labels(kind).set(len(ids))
            metrics.recall.labels(kind).set(index.recall)

    def _demands(self) -> list[Demand]:
        """What those that wait and those under way ask for."""
        load = self.model.engine.load()
        costs = self.model.engine.cost_table
        budget_s = min((part.job.budget_s for part in self._in_engine.values()), default=0.0)
        tokens = load.prefix_tokens + load.suffix_tokens
        columns = load.depth.tolist(), tokens.tolist(), load.deadline_s.tolist()
        under_way = []
        for depth, count, deadline_s in zip(*columns, strict=True):
            next_head_s = costs.seconds(depth, count)
            beyond_s = costs.seconds_to_end(depth, count) - next_head_s
            under_way.append(Demand(deadline_s, budget_s, beyond_s, next_head_s))
        return under_way + self._waiting.demands(self.margin.seconds)

    def _engine_tokens(self) -> int:
        load = self.model.engine.load()
        return int(load.prefix_tokens.sum() + load.suffix_tokens.sum())

    def _engine_busy_s(self) -> float:
        """Seconds until everything in the engine has passed one more head."""
        load = self.model.engine.load()
        tokens = np.bincount(load.depth, load.prefix_tokens + load.suffix_tokens)
        return sum(
            self.model.engine.cost_table.seconds(stage, int(count)) for stage, count in enumerate(tokens) if count
        )

    def _take_over(self, part: Part, result: EngineResult, threshold: float) -> None:
        """Puts the engine's answers into the job; what it left to the graph is scored there."""
        job, place = part.job, slice(part.start, part.stop)
        job.ctr[place] = result.ctr
        job.exit_layer[place] = result.exit_layer
        job.confidence[place] = result.confidence
        job.made_by[place] = result.made_by
        job.infer_s += result.infer_s
        job.token_layers_run += result.token_layers_run
        job.token_layers_full += result.token_layers_full
        left = np.flatnonzero(result.made_by == GRAPH)
        if len(left):
            asked = [part.item_ids[at] for at in left.tolist()]
            job.ctr[part.start + left] = self.model.graph.score([(job.request.user_id, asked)])[0]
        self._answered(part, threshold)

    def _answer_from_graph(self, parts: Sequence[Part]) -> None:
        rates = self.model.graph.score([(part.job.request.user_id, part.item_ids) for part in parts])
        for part, ctr in zip(parts, rates, strict=True):
            part.job.ctr[part.start : part.stop] = ctr
            self._note_embedding(part.job)
            self._answered(part, self.model.controller.threshold)

    def _answered(self, part: Part, threshold: float) -> None:
        part.job.unanswered -= len(part)
        if not part.job.unanswered:
            part.job.threshold = threshold
            self._finish(part.job)

    def _finish(self, job: Job) -> None:
        job.scored_s = self._clock.monotonic()
        job.scored_time_ms = self._clock.wall_ms()
        self._finished.append(job)

    def _note_embedding(self, job: Job) -> None:
        """Which embedding of the user it was scored with."""
        users = self._tables.users
        row = users.ids.row(job.request.user_id)
        if row != UNKNOWN_ROW and users.embedded[row]:
            job.embedding_version = int(users.versions[row])
            job.embedding_time_ms = int(users.event_times_ms[row])


_WRITING_S: Final = {"at_least_once": 0.01, "exactly_once": 0.06}
"""What writing scores is taken to last until that is known."""
_MOST_MARGIN: Final = 0.4
"""Share of the default budget that may at most be kept back for writing and reading."""
