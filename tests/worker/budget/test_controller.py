"""The controller and admission, against a simulated clock."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import FrontierPoint
from worker.budget.controller import (
    ControllerSettings,
    Demand,
    FixedThreshold,
    ThresholdController,
    affordable_share,
)

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


def _plain_share(now_s, waiting, reserve):
    """The formula of the module's docstring, for one demand after the other."""
    share, work_s, fixed_s = np.inf, 0.0, 0.0
    for each in sorted(waiting, key=lambda demand: demand.deadline_s):
        work_s, fixed_s = work_s + each.work_s, fixed_s + each.fixed_s
        slack_s = each.deadline_s - now_s
        if slack_s > 0:
            needed_s = work_s + reserve * each.budget_s
            share = min(share, max(slack_s - fixed_s, 0.0) / max(needed_s, 1e-9))
    return share


@settings(max_examples=100, deadline=None)
@given(now_s=st.floats(-0.5, 2), waiting=demands, reserve=st.sampled_from([0.0, 0.4, 1.0]))
def test_what_is_affordable_is_the_smallest_share_over_all_demands(now_s, waiting, reserve):
    """Each demand waits for the work and the fixed part of all that are due before it, and for its own."""
    expected = _plain_share(now_s, waiting, reserve)
    assert affordable_share(now_s, waiting, reserve) == pytest.approx(expected)


@pytest.mark.parametrize("ahead", [0, 13, 40])
def test_of_equal_deadlines_the_first_that_came_is_served_first(ahead):
    """A demand waits for those due with it that came before, and for all that are due earlier, but for no other."""
    large = Demand(deadline_s=2.0, budget_s=4.0, work_s=0.01)
    small, earlier = Demand(2.0, budget_s=0.0, work_s=0.01), Demand(1.0, budget_s=0.0, work_s=0.01)
    waiting = [*[small] * ahead, large, *[small] * (40 - ahead), *[earlier] * 40]
    assert affordable_share(0.0, waiting, 1.0) == pytest.approx(2 / (0.4 + 0.01 * ahead + 4.01))


def test_what_is_due_now_does_not_lower_the_threshold():
    """At its deadline a demand has no slack left, and does not count any more."""
    due_now, later = Demand(deadline_s=2.0, budget_s=1.0, work_s=1.0), Demand(deadline_s=4.0, budget_s=0.0, work_s=1.0)
    assert affordable_share(2.0, [due_now], 0.5) == np.inf
    assert affordable_share(2.0, [due_now, later], 0.5) == 1.0


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.tuples(st.floats(-0.05, 0.5), demands), min_size=1, max_size=10),
    band=st.sampled_from([0.0, 0.04, 0.2]),
    rise_time_s=st.sampled_from([0.1, 0.3, 2.0]),
)
def test_it_drops_at_once_and_rises_with_its_time_constant_up_to_the_band(steps, band, rise_time_s):
    """Between updates the share goes 1 - exp(-t/rise time) of its way up to the band's lower edge, never down.

    What can be afforded bounds it at once. More than the band beyond the share of `base` is never counted.
    """
    controller = _controller(band=band, rise_time_s=rise_time_s)
    highest = BASE_SHARE * (1 + band) + band
    share, now_s = highest, 5.0
    for place, (passed_s, waiting) in enumerate(steps):
        now_s += passed_s
        affordable = min(_plain_share(now_s, waiting, 0.4), highest)
        way = affordable - band - share
        if place > 0 and way > 0:
            share += way * (1 - np.exp(-max(passed_s, 0.0) / rise_time_s))
        share = min(share, affordable)
        assert controller.update(now_s, waiting) == pytest.approx(np.interp(share, [0.3, 0.5, 0.8], [0.3, 0.6, 0.9]))
        assert controller.threshold == pytest.approx(np.interp(share, [0.3, 0.5, 0.8], [0.3, 0.6, 0.9]))


def _affording(share):
    """One demand that can afford exactly this share, without a reserve."""
    return [Demand(deadline_s=1.0, budget_s=1.0, work_s=1 / share)]


def test_a_drop_takes_effect_at_once_and_half_of_the_rise_after_its_half_life():
    """From a share of 0.3 towards 0.8 and the band: after ln 2 times the rise time half of the way is done."""
    controller = _controller(deadline_reserve=0.0, band=0.0, rise_time_s=0.5)

    assert controller.update(0.0, _affording(0.3)) == pytest.approx(0.3)
    assert controller.update(0.0, []) == pytest.approx(0.3)
    assert controller.update(0.5 * np.log(2), []) == pytest.approx(0.65)  # a share of 0.55


def test_within_the_dead_band_nothing_moves():
    """A little more that can be afforded does not raise the threshold, however long it lasts."""
    controller = _controller(deadline_reserve=0.0, band=0.1)

    assert controller.update(0.0, _affording(0.5)) == pytest.approx(0.6)
    assert controller.update(0.0, [Demand(1.0, 1.0, 1 / 0.59)]) == pytest.approx(0.6)
    assert controller.update(100.0, [Demand(101.0, 1.0, 1 / 0.59)]) == pytest.approx(0.6)
    assert controller.update(200.0, [Demand(201.0, 1.0, 1 / 0.7)]) == pytest.approx(0.7)  # a share of 0.6
    assert controller.update(200.0, [Demand(201.0, 1.0, 1 / 0.5)]) == pytest.approx(0.6)


@pytest.mark.parametrize(("floor", "share"), [(0.3, 0.3), (0.45, 0.4), (0.1, 0.2)])
def test_the_floors_share_is_read_off_the_frontier(floor, share):
    """At a measured threshold and between two of them."""
    assert ThresholdController(BASE, floor, FRONTIER).floor_share == pytest.approx(share)


def test_without_a_frontier_half_the_work_is_assumed_at_the_floor():
    """And all of it at base; in between the threshold follows the share."""
    for frontier in ([], FRONTIER[:1]):
        controller = ThresholdController(0.9, 0.5, frontier, ControllerSettings(deadline_reserve=0.0))
        assert controller.floor_share == 0.5
        assert controller.update(0.0, _affording(0.75)) == pytest.approx(0.7)


def test_two_points_are_a_frontier():
    """What lies between them is read off the line through them."""
    points = [FrontierPoint(0.5, 0.2, 0.05), FrontierPoint(0.9, 0.6, 0.0)]
    controller = ThresholdController(0.9, 0.5, points, ControllerSettings(deadline_reserve=0.0))
    assert controller.floor_share == pytest.approx(0.2)
    assert controller.update(0.0, _affording(0.4)) == pytest.approx(0.7)


def test_thresholds_beyond_base_are_not_used_though_they_cost_the_same():
    """Where a higher threshold was measured at the cost of base, the threshold is base."""
    points = [FrontierPoint(*numbers, 0.0) for numbers in ((0.25, 0.25), (0.5, 0.5), (0.75, 0.5), (1.0, 1.0))]
    controller = ThresholdController(0.5, 0.25, points, ControllerSettings(deadline_reserve=0.0))
    assert controller.update(0.0, _affording(0.5)) == 0.5


def test_a_fixed_threshold_ignores_the_load():
    """It stays as it was given, and admission counts on nobody leaving early."""
    fixed = FixedThreshold(0.7)
    assert fixed.update(0.0, _affording(0.01)) == 0.7
    assert (fixed.threshold, fixed.floor_share) == (0.7, 1.0)
