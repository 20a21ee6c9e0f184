"""The whole compute side under load, in simulated time: queue, budget, engine and pipeline together.

Stages and preparation take the time that a hand-made cost table says, by moving a simulated clock; everything else is
real. So what is observed here is the effect of a decision on answers, not the decision itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from runtime.clock import ManualClock
from schemas.codec import encode
from schemas.messages import ImpressionRequest, ImpressionScores
from worker.engine.cost import CostTable

SECONDS_PER_TOKEN = 1e-4
PREPARE_S = 0.002
CANDIDATES = 4
BUDGET_MS = 400
LAYERS = (1, 2, 4)


class Simulation:
    """A worker whose stages and preparations take simulated time.

    Args:
        make_desk: makes a worker without Kafka.
        slower: real stages take this many times what the cost table says.
        prepare_s: what preparing one part takes.
        worker: settings of `[worker]`.
    """

    def __init__(
        self, make_desk: Callable, slower: float = 1.0, prepare_s: float = PREPARE_S, **worker: object
    ) -> None:
        self.clock = ManualClock()
        costs = CostTable([1, 1000], np.outer(np.ones(3), [SECONDS_PER_TOKEN, 1000 * SECONDS_PER_TOKEN]))
        self.desk = make_desk(
            clock=self.clock, costs=costs, **{"reading_margin_ms": 0, "budget_ms": BUDGET_MS} | worker
        )
        self.engine = self.desk.model.engine
        self.rounds: list[tuple[float, float]] = []
        """After every round, the simulated time and the threshold in force."""
        self._let_time_pass(slower, prepare_s)

    def _let_time_pass(self, slower: float, prepare_s: float) -> None:
        run, retriever = self.engine._runner.run, self.desk.model.retriever
        retrieve = retriever.retrieve

        def run_for_a_while(parts):
            logits, tokens = run(parts)
            self.clock.advance(sum(tokens) * SECONDS_PER_TOKEN * slower)
            return logits, tokens

        def retrieve_for_a_while(*arguments):
            self.clock.advance(prepare_s)
            return retrieve(*arguments)

        self.engine._runner.run = run_for_a_while
        slow = type("SlowRetriever", (), {"retrieve": staticmethod(retrieve_for_a_while)})()
        self.desk.use(replace(self.desk.model, retriever=slow))

    def request(self, name: str, **changes: object) -> ImpressionRequest:
        """A request made now, of another user than the one before."""
        number = int("".join(filter(str.isdigit, name)) or 0)
        items = [f"i{(number + step) % 20}" for step in range(CANDIDATES)]
        return self.desk.request(
            *items, **{"request_id": name, "user_id": f"u{number % 10}", "budget_ms": BUDGET_MS} | changes
        )

    async def accept(self, *requests: ImpressionRequest) -> None:
        """Takes requests in, as they come from Kafka."""
        await self.desk.accept(*(self.desk.record(encode(request)) for request in requests))

    def round(self) -> bool:
        """One round of the compute thread."""
        more = self.desk.pipeline.infer()
        self.rounds.append((self.clock.monotonic(), self.engine.controller.threshold))
        return more

    async def serve(self, every_s: float, count: int, prefix: str = "r", **changes: object) -> None:
        """Requests at a constant rate until all are answered."""
        due = [self.clock.monotonic() + number * every_s for number in range(count)]
        sent = 0
        while True:
            while sent < count and due[sent] <= self.clock.monotonic():
                late_ms = round((self.clock.monotonic() - due[sent]) * 1000)
                created = self.clock.wall_ms() - late_ms
                await self.accept(self.request(f"{prefix}{sent}", created_time_ms=created, **changes))
                sent += 1
            if not self.round():
                if sent == count:
                    break
                self.clock.advance(max(due[sent] - self.clock.monotonic(), 1e-6))
        await self.desk.pipeline.publish_answered()

    def answers(self, prefix: str = "r") -> list[ImpressionScores]:
        """The scores of requests whose name begins so, in the order in which they were sent."""
        found = [scores for scores in self.desk.scores() if scores.request_id.startswith(prefix)]
        return sorted(found, key=lambda scores: int("".join(filter(str.isdigit, scores.request_id))))


def made_by(answers: Sequence[ImpressionScores]) -> set[str]:
    """How candidates were scored."""
    return {score.made_by for scores in answers for score in scores.scores}


def mean_layer(answers: Sequence[ImpressionScores]) -> float:
    """How deep candidates went on average."""
    return statistics.fmean(score.exit_layer for scores in answers for score in scores.scores)


@pytest.fixture
def simulate(make_desk) -> Callable[..., Simulation]:
    """Makes simulated workers."""

    def make(**options: object) -> Simulation:
        return Simulation(make_desk, **options)

    return make


async def alone_s(simulation: Simulation) -> float:
    """What one request takes from its arrival to its score, without company."""
    await simulation.serve(1.0, 3, prefix="alone")
    return simulation.answers("alone")[-1].step_times.infer_ms / 1000 + PREPARE_S


async def test_without_load_requests_are_answered_at_the_base_threshold(simulate):
    """Every candidate goes as deep as at the calibrated threshold, and the answer says so."""
    simulation = simulate(controller={"base_threshold": 1.0})
    await simulation.serve(1.0, 5)
    assert mean_layer(simulation.answers()) == LAYERS[-1]
    assert {scores.exit_threshold for scores in simulation.answers()} == {1.0}


async def test_under_load_candidates_leave_earlier_and_requests_stay_in_time(simulate):
    """At twice what full depth can serve: shallower on average, still by heads, and within the budget."""
    simulation = simulate(controller={"base_threshold": 1.0})
    full_s = await alone_s(simulation)
    await simulation.serve(full_s / 2, 120)
    answers = simulation.answers()
    assert mean_layer(answers[40:]) < 0.9 * LAYERS[-1]
    assert sum(scores.status == "late" for scores in answers) <= 1
    assert "graph" not in made_by(answers)
    assert {"confident"} <= made_by(answers[40:])


async def test_a_worker_that_does_not_adapt_loses_requests_that_the_adaptive_one_answers_by_a_head(simulate):
    """The same load with the threshold held at base: it runs out of time where the controller does not."""
    fixed = simulate(controller={"base_threshold": 1.0, "floor_threshold": 1.0})
    adaptive = simulate(controller={"base_threshold": 1.0})
    for simulation in (fixed, adaptive):
        await simulation.serve(0.02, 80)
    assert {"graph", "deadline"} & made_by(fixed.answers())
    assert mean_layer(fixed.answers()[40:]) != mean_layer(adaptive.answers()[40:])
    assert sum(score.made_by == "graph" for scores in adaptive.answers() for score in scores.scores) < sum(
        score.made_by == "graph" for scores in fixed.answers() for score in scores.scores
    )


async def test_the_threshold_drops_at_once_and_comes_back_slowly(simulate):
    """A burst lowers it in the round that sees it; without load it takes more than one time constant to be back."""
    simulation = simulate(controller={"base_threshold": 1.0, "rise_time_s": 0.3})
    await simulation.serve(1.0, 2, prefix="before")
    await simulation.accept(*(simulation.request(f"r{number}") for number in range(40)))
    simulation.round()
    lowest = simulation.rounds[-1][1]
    assert lowest < 0.7
    while simulation.round():
        pass
    ended_s = simulation.clock.monotonic()
    while simulation.engine.controller.threshold < 1.0:
        simulation.clock.advance(0.05)
        simulation.round()
        if simulation.clock.monotonic() - ended_s <= 0.1:
            assert simulation.engine.controller.threshold < 1.0
    assert 0.1 < simulation.clock.monotonic() - ended_s < 2.0


async def test_work_in_progress_lowers_the_threshold_as_waiting_work_does(simulate):
    """With nothing waiting, prepared requests that cannot all reach full depth in time are known to the controller."""
    simulation = simulate(controller={"base_threshold": 1.0})
    await simulation.accept(*(simulation.request(f"r{number}", budget_ms=150) for number in range(8)))
    simulation.round()
    assert simulation.engine.waiting == 0
    assert simulation.engine.busy
    assert simulation.engine.controller.threshold < 1.0


async def test_a_request_that_cannot_reach_a_head_is_not_admitted_and_costs_no_preparation(simulate):
    """Predicted from what is in progress and what waits before it: the graph answers at once, before its deadline."""
    simulation = simulate()
    full_s = await alone_s(simulation)
    crowd = [simulation.request(f"r{number}", budget_ms=2000) for number in range(20)]
    await simulation.accept(*crowd)
    simulation.round()
    hurried = simulation.request("hurried0", budget_ms=max(int(full_s * 1000 / 6), 2))
    await simulation.accept(hurried)
    while simulation.round():
        pass
    await simulation.desk.pipeline.publish_answered()
    [scores] = simulation.answers("hurried")
    assert made_by([scores]) == {"graph"}
    assert scores.status == "ok"
    assert scores.step_times.retrieve_ms == 0


async def test_admission_expects_the_lowest_threshold_not_full_depth(simulate):
    """What can be in time once those ahead leave early is admitted, though at full depth it could not be."""
    simulation = simulate(controller={"base_threshold": 1.0})
    await simulation.serve(0.5, 3, prefix="before")
    count = 12
    await simulation.accept(*(simulation.request(f"r{number}", budget_ms=330) for number in range(count)))
    while simulation.round():
        pass
    await simulation.desk.pipeline.publish_answered()
    by_graph = [scores for scores in simulation.answers() if made_by([scores]) == {"graph"}]
    assert len(by_graph) <= 4


async def test_the_time_for_delivery_is_kept_back(simulate):
    """Of two workers the one whose scores take 150 ms to deliver has answered that much before the deadline."""
    quick, slow = simulate(controller={"base_threshold": 1.0}), simulate(controller={"base_threshold": 1.0})
    slow.desk.pipeline._delivery_margin.seconds = 0.15
    for simulation in (quick, slow):
        await simulation.accept(*(simulation.request(f"r{number}", budget_ms=300) for number in range(30)))
        while simulation.round():
            pass
        await simulation.desk.pipeline.publish_answered()
    last_ms = {
        simulation: max(scores.scored_time_ms for scores in simulation.answers() if made_by([scores]) != {"graph"})
        - simulation.answers()[0].created_time_ms
        for simulation in (quick, slow)
    }
    assert last_ms[slow] <= 150 < last_ms[quick] <= 300


async def test_a_slow_machine_is_learned(simulate):
    """Stages that take three times what was measured: after a while predictions have followed, and hardly anybody is
    late. (Who is, went deeper than requests like it had.)
    """
    simulation = simulate(slower=3.0, controller={"base_threshold": 1.0})
    await simulation.serve(0.08, 60)
    late = [scores.status == "late" for scores in simulation.answers()]
    assert sum(late[20:]) <= 1 < sum(late[:20])


async def test_a_deadline_met_exactly_is_in_time(simulate):
    """A request whose first head is predicted to answer at the very deadline is admitted."""
    simulation = simulate(prepare_s=0.0, engine={"safety_factor": 1.0})
    await simulation.serve(1.0, 1)
    job = simulation.answers()[0]
    assert made_by([job]) <= {"confident", "final"}


async def test_under_overload_every_request_is_answered_once_and_marked(simulate):
    """Ten times what can be computed: some by heads, the rest by the graph, each told as what it is."""
    simulation = simulate(controller={"base_threshold": 1.0})
    await simulation.serve(0.002, 300)
    answers = simulation.answers()
    assert len(answers) == len({scores.request_id for scores in answers}) == 300
    assert {"graph", "confident"} <= made_by(answers)
    for score in (score for scores in answers for score in scores.scores):
        assert (score.exit_layer == 0) == (score.made_by == "graph")
        assert 0 < score.ctr < 1
    assert sum(scores.status == "late" for scores in answers) <= 3
