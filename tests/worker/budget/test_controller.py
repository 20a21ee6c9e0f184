"""The controller and admission, against a simulated clock."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import FrontierPoint
from worker.budget.controller import ControllerSettings, Demand, ThresholdController, affordable_share

BASE, FLOOR = 0.9, 0.3
FRONTIER = [
    FrontierPoint(0.1, 0.2, 0.05),
    FrontierPoint(0.3, 0.3, 0.03),
    FrontierPoint(0.6, 0.5, 0.01),
    FrontierPoint(0.9, 0.8, 0.0),
    FrontierPoint(1.0, 1.0, 0.0),
]
BASE_SHARE, FLOOR_SHARE = 0.8, 0.3
BAND = 0.1
"""How far the threshold may move at a constant load once it has settled."""


def _controller(**changes):
    return ThresholdController(BASE, FLOOR, FRONTIER, ControllerSettings(**changes))


demands = st.lists(
    st.builds(
        Demand,
        deadline_s=st.floats(-0.5, 2),
        budget_s=st.floats(0.01, 1),
        work_s=st.floats(0, 0.5),
        fixed_s=st.floats(0, 0.1),
    ),
    max_size=12,
)


def test_without_load_it_is_calm():
    """Nothing to do, or one request that fits, leaves the promised quality."""
    controller = _controller()

    assert controller.update(0.0, []) == BASE
    assert controller.update(0.1, [Demand(deadline_s=0.3, budget_s=0.2, work_s=0.05)]) == BASE


def test_it_falls_no_further_than_needed():
    """The threshold in force costs what can be afforded, not less."""
    waiting = [Demand(deadline_s=0.2, budget_s=0.2, work_s=0.04) for _ in range(8)]

    threshold = _controller().update(0.0, waiting)

    affordable = affordable_share(0.0, waiting, ControllerSettings().deadline_reserve)
    assert FLOOR_SHARE < affordable < BASE_SHARE
    shares = [point.token_layer_share for point in FRONTIER]
    thresholds = [point.threshold for point in FRONTIER]
    assert np.interp(threshold, thresholds, shares) == pytest.approx(affordable)


def test_the_predicted_finish_of_all_that_waits_lies_before_its_deadline():
    """Served by deadline at the affordable share, everything ends in time."""
    waiting = [Demand(deadline_s=0.05 * (place + 2), budget_s=0.2, work_s=0.08, fixed_s=0.02) for place in range(6)]

    share = affordable_share(0.0, waiting, deadline_reserve=0.4)

    assert share > 0
    finished_s = np.cumsum([demand.fixed_s + demand.work_s * share for demand in waiting])
    assert all(finish <= demand.deadline_s for finish, demand in zip(finished_s, waiting, strict=True))


def test_what_no_threshold_saves_is_not_hoped_to_be_saved():
    """Where the fixed part alone takes all the time, nothing is left to go deeper with."""
    waiting = [Demand(deadline_s=0.2, budget_s=0.2, work_s=0.01, fixed_s=0.05) for _ in range(4)]

    assert affordable_share(0.0, waiting, deadline_reserve=0.4) == 0
    assert _controller().update(0.0, waiting) == FLOOR


def test_what_is_past_its_deadline_does_not_lower_the_threshold():
    """No threshold can save it, so nobody else pays for it."""
    assert _controller().update(10.0, [Demand(deadline_s=9.0, budget_s=0.2, work_s=5.0)]) == BASE


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(st.tuples(st.floats(0, 0.2), demands, demands), min_size=1, max_size=8))
def test_more_load_never_raises_the_threshold(steps):
    """Of two workers, the one that at every moment has all of the other's work and more is never above it."""
    less, more = _controller(), _controller()
    now_s = 0.0
    for passed_s, common, extra in steps:
        now_s += passed_s
        assert more.update(now_s, common + extra) <= less.update(now_s, common) + 1e-9


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(st.tuples(st.floats(0, 0.5), demands), min_size=1, max_size=8))
def test_it_stays_between_floor_and_calm_and_returns_to_calm(steps):
    """Whatever waits; and two seconds after the last of it the threshold is base again."""
    controller = _controller()
    now_s = 0.0
    for passed_s, waiting in steps:
        now_s += passed_s
        assert FLOOR <= controller.update(now_s, waiting) <= BASE
    for _ in range(20):
        now_s += 0.1
        controller.update(now_s, [])
    assert controller.threshold == BASE


class Simulation:
    """One server, earliest deadline first, whose service time is the work times the share that a threshold costs."""

    def __init__(self, work_s=0.01, budget_s=0.2, drift=1.0):
        self.controller = _controller()
        self.work_s, self.budget_s, self.drift = work_s, budget_s, drift
        self.now_s = 0.0
        self.queue: list[float] = []
        self.thresholds: list[tuple[float, float]] = []
        self.finished = self.late = 0

    def run(self, arrivals):
        """Serves arrivals (rising times) until the last has come; all answers and thresholds are noted."""
        arrivals = list(arrivals)
        at = 0
        while at < len(arrivals):
            while at < len(arrivals) and arrivals[at] <= self.now_s:
                heapq.heappush(self.queue, arrivals[at] + self.budget_s)
                at += 1
            if not self.queue:
                if at < len(arrivals):
                    self.now_s = arrivals[at]
                continue
            waiting = [Demand(deadline, self.budget_s, self.work_s) for deadline in self.queue]
            threshold = self.controller.update(self.now_s, waiting)
            self.thresholds.append((self.now_s, threshold))
            share = np.interp(threshold, [point.threshold for point in FRONTIER], [0.2, 0.3, 0.5, 0.8, 1.0])
            self.now_s += self.work_s * share * self.drift
            deadline = heapq.heappop(self.queue)
            self.finished += 1
            self.late += self.now_s > deadline

    def settled(self, since_s):
        return np.array([threshold for at, threshold in self.thresholds if at > since_s])


@settings(max_examples=25, deadline=None)
@given(load=st.floats(0.3, 3.0))
def test_at_constant_load_it_settles(load):
    """After three seconds of regular arrivals, whatever their rate, it moves less than the band, and nobody is late."""
    simulation = Simulation()
    simulation.run(np.arange(0, 6, simulation.work_s / load))

    assert np.ptp(simulation.settled(3.0)) < BAND
    assert simulation.late == 0


@settings(max_examples=10, deadline=None)
@given(load=st.floats(0.3, 2.0), seed=st.integers(0, 1000))
def test_at_random_arrivals_it_moves_little(load, seed):
    """Poisson arrivals at a constant rate make it breathe, not swing, and nearly nobody is late."""
    simulation = Simulation()
    gaps = np.random.default_rng(seed).exponential(simulation.work_s / load, int(6 * load / simulation.work_s))
    simulation.run(np.cumsum(gaps))

    assert np.std(simulation.settled(3.0)) < 1.5 * BAND
    assert simulation.late <= 0.001 * simulation.finished


def test_after_a_burst_it_is_calm_again_within_two_seconds():
    """Load goes, the threshold returns."""
    simulation = Simulation()
    simulation.run(np.arange(0, 2, simulation.work_s / 3))
    assert simulation.controller.threshold < 0.5

    simulation.run(np.arange(simulation.now_s, simulation.now_s + 2, simulation.work_s / 0.5))

    assert simulation.controller.threshold == BASE


def test_it_follows_a_machine_that_is_slower_than_predicted():
    """A quarter slower than the cost table says, and still nobody is late: slack tells what predictions miss."""
    simulation = Simulation(drift=1.25)
    simulation.run(np.arange(0, 6, simulation.work_s / 1.5))

    assert simulation.late == 0


def test_a_frontier_that_tells_nothing_still_gives_thresholds():
    """A model without a measured frontier goes from base to floor all the same."""
    controller = ThresholdController(0.9, 0.5, [])

    assert controller.update(0.0, []) == 0.9
    assert controller.update(0.1, [Demand(0.2, 0.1, 9.0)]) == 0.5
