"""The fleet's sums and its simulation agree where theory is exact, and neither gains by more load."""

import json
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fill_docs import FIGURES
from benchmarks.fleet import Prices, breaking_shares, main, told
from benchmarks.fleet_calibration import search_costs, updater_costs, worker_costs
from benchmarks.fleet_capacity import ITEM_FLUSH_S, Bounds, Load, distinct_items, fleet, ratios, sized, sustained_events
from benchmarks.fleet_costs import NAMES, Costs, FleetError, gathered, kept
from benchmarks.fleet_costs import given as given_costs
from benchmarks.fleet_simulation import Flow, mean_wait_s, simulate
from benchmarks.fleet_tables import LAYOUTS, LIMITS, limits, simulated, sizes

COSTS = Costs(
    score_s=4e-4,
    score_cv=0.5,
    search_s_per_user=8e-9,
    train_s_per_flop=5e-12,
    worker_base_bytes=1.4e9,
    worker_user_bytes=2_300,
    worker_item_bytes=1_400,
    user_state_apply_s=5e-5,
    item_state_apply_s=1e-5,
    event_s=1.2e-5,
    user_state_encode_s=4e-5,
    item_state_encode_s=3e-6,
    updater_base_bytes=3e8,
    updater_node_bytes=2_400,
    updater_edge_bytes=56,
    updater_past_bytes=83,
    restore_s_per_node=1.5e-5,
    turned_users_per_event=0.05,
    turned_items_per_event=0.0,
    user_state_bytes=3_400,
    item_state_bytes=300,
)
BOUNDS = Bounds()
LOADS = st.builds(
    Load,
    users=st.floats(1e3, 1e9),
    items=st.sampled_from([1e3, 1e5, 1e6]),
    events_per_second=st.floats(10, 1e6),
    requests_per_second=st.floats(1, 1e5),
)
LAYOUT = st.sampled_from(sorted(ITEM_FLUSH_S))
COUNTS = st.integers(1, 200)
SMALL = Load(users=1e6, items=1e5, events_per_second=4_000, requests_per_second=500)
NEVER_LESS = (
    *("user_states", "item_states", "states_share", "requests_share", "service_s", "retrieval_s", "worker_bytes"),
    *("worker_read_bytes", "fill_s", "training_s", "updater_share", "exchange_share", "updater_bytes"),
    *("updater_written_bytes", "updater_read_bytes", "restore_s", "state_bytes", "exchange_bytes"),
)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(share=st.floats(0.1, 0.6), request_s=st.floats(1e-3, 0.05), cv=st.sampled_from([0.0, 0.5]))
def test_the_simulation_meets_the_formulas_of_queueing(share, request_s, cv):
    """With requests alone it is M/D/1 or M/G/1: utilisation and mean wait are the formulas' but for chance."""
    flow = Flow(share / request_s, request_s, cv)
    ran = simulate(flow, jobs=20_000, seed=1)
    assert ran["worker_share"] == pytest.approx(flow.worker_share, rel=0.05)
    assert ran["mean_wait_ms"] == pytest.approx(1e3 * mean_wait_s(flow), rel=0.15)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(events=st.floats(200, 4_000), states=st.floats(0.5, 2))
def test_states_keep_thread_and_updater_as_busy_as_the_sums_say(events, states):
    """Utilisations are the sums' when states and requests share the thread; a publication takes longer than a flush."""
    flow = Flow(20, 5e-3, 0.5, events_per_second=events, event_s=1e-4, states_per_event=states, state_s=5e-5)
    ran = simulate(flow, jobs=4_000, seed=1)
    assert ran["worker_share"] == pytest.approx(flow.worker_share, rel=0.05)
    assert ran["updater_share"] == pytest.approx(flow.updater_share, rel=0.05)
    assert ran["freshness_p99_ms"] >= ran["freshness_p50_ms"] >= 35  # half a flush of 50 ms and 10 ms of writing


def test_the_wait_of_a_constant_service_is_that_of_m_d_1():
    """Half the load's share of the service time, divided by what is left."""
    assert mean_wait_s(Flow(50, 0.01)) == pytest.approx(0.5 * 0.01 / (2 * 0.5))


def test_a_seed_gives_the_same_figures_again():
    """Nothing but the seed decides; and what has no stable queue is not simulated."""
    flow = Flow(20, 5e-3, 0.5, 1_000, 1e-4, 1.0, 5e-5)
    first, again, other = (simulate(flow, jobs=1_000, seed=seed) for seed in (3, 3, 4))
    assert first == again != other
    assert simulate(Flow(200, 5e-3), jobs=1_000, seed=0) is None


@given(load=LOADS, layout=LAYOUT, workers=COUNTS, updaters=COUNTS, more=st.floats(1, 10))
def test_more_load_never_needs_less(load, layout, workers, updaters, more):
    """With more users, events or requests no figure of a process falls, whatever the layout."""
    updaters = 1 if layout == "today" else updaters
    before = fleet(layout, load, COSTS, workers, updaters)
    for name in ("users", "events_per_second", "requests_per_second"):
        after = fleet(layout, replace(load, **{name: more * getattr(load, name)}), COSTS, workers, updaters)
        for figure in NEVER_LESS:
            assert getattr(after, figure) >= getattr(before, figure) * (1 - 1e-9), (name, figure)


@given(load=LOADS, layout=LAYOUT, workers=COUNTS)
def test_more_workers_hold_less_each_only_where_users_are_shared(load, layout, workers):
    """Today a further worker takes requests off the others, but neither users nor states."""
    few, many = (fleet(layout, load, COSTS, number, 1) for number in (workers, 2 * workers))
    assert many.requests_share <= few.requests_share
    if layout == "today":
        assert (many.worker_bytes, many.states_share) == (few.worker_bytes, few.states_share)
    else:
        assert many.worker_bytes < few.worker_bytes
        assert many.states_share < few.states_share


@given(load=LOADS)
def test_the_planned_layout_of_one_process_each_is_that_of_today(load):
    """With one worker and one updater there is nothing to share."""
    assert fleet("planned", load, COSTS, 1, 1) == fleet("today", load, COSTS, 1, 1)


@pytest.mark.parametrize("layout", sorted(ITEM_FLUSH_S))
def test_a_fleet_is_as_small_as_its_limits_allow(layout):
    """It keeps all limits; with a worker less a core would be too busy."""
    best, works = sized(layout, SMALL, COSTS, BOUNDS)
    assert works
    assert max(ratios(layout, best, BOUNDS).values()) <= 1
    assert best.worker_share <= BOUNDS.utilisation
    assert fleet(layout, SMALL, COSTS, best.workers - 1, best.updaters).worker_share > BOUNDS.utilisation


@pytest.mark.parametrize("layout", sorted(ITEM_FLUSH_S))
def test_the_first_limit_is_where_fleets_stop_working(layout):
    """A little less than the first breaking share can be carried, a little more cannot."""
    first = min(at for at in breaking_shares(layout, SMALL, COSTS, BOUNDS).values() if at is not None)
    assert sized(layout, SMALL.scaled(0.9 * first), COSTS, BOUNDS)[1]
    assert not sized(layout, SMALL.scaled(1.12 * first), COSTS, BOUNDS)[1]


def test_today_one_updater_is_too_few_for_many_events():
    """No number of workers helps; the share of its core tells how far it is from enough."""
    best, works = sized("today", replace(SMALL, events_per_second=1e5), COSTS, BOUNDS)
    assert not works
    assert best.updaters == 1
    assert best.updater_share > 1


@pytest.mark.parametrize("drawn", [10, 1_000, 100_000])
def test_different_items_are_counted_as_one_by_one(drawn):
    """The binned ranks give the sum over every item."""
    items = 20_000
    chances = 1 / np.arange(1, items + 1)
    chances /= chances.sum()
    assert distinct_items(items, drawn) == pytest.approx((1 - (1 - chances) ** drawn).sum(), rel=0.02)


def test_what_fills_the_updater_is_found():
    """At that rate its core is busy all the time."""
    rate = sustained_events(COSTS, 943, 1_682)
    assert fleet("today", Load(943, 1_682, rate, 1), COSTS, 1, 1).updater_share == pytest.approx(1)


def test_costs_are_measured_or_kept_and_none_is_missing():
    """A small calibration and docs/figures together name every cost, each above zero."""
    costs = gathered(kept(FIGURES), worker_costs(256), search_costs(2_000), updater_costs(60, 40))
    measured = costs.to_json()
    assert all(value > 0 for name, value in measured.items() if not name.startswith(("turned", "worker_")))
    assert {field.name for field in fields(Costs)} == NAMES == measured.keys()


@pytest.mark.parametrize(
    ("told", "said"),
    [({"scores": 1.0}, "scores"), ({"score_s": -1}, "score_s"), ({"score_s": "1"}, "score_s"), ({}, "event_s")],
)
def test_costs_that_cannot_be_are_refused(told, said):
    """Unknown, negative, no numbers, or missing: the message names them."""
    with pytest.raises(FleetError, match=said):
        gathered(told)


@pytest.mark.parametrize("text", ["", "[1]", '{"costs": 3}'])
def test_a_file_without_costs_is_refused(tmp_path, text):
    """It says which file."""
    (tmp_path / "costs.json").write_text(text)
    with pytest.raises(FleetError, match=r"costs\.json"):
        given_costs(tmp_path / "costs.json")


def test_a_load_of_nothing_is_refused():
    """Zero users are no fleet."""
    with pytest.raises(FleetError, match="users"):
        Load(0, 1, 1, 1)


def test_the_tables_tell_every_limit_and_layout():
    """What works has counts and a price; what does not says so; the first limit stands out."""
    heavy = replace(SMALL, events_per_second=1e5)
    row = {"load": vars(heavy)} | {name: told(name, heavy, COSTS, (BOUNDS, Prices()), 500, 0) for name in LAYOUTS}
    assert row["today"]["limits"].keys() == LIMITS.keys()
    assert LAYOUTS.keys() == ITEM_FLUSH_S.keys()
    figures = {"fleets": [row]}
    assert "no number suffices" in sizes(figures)
    assert "1 million users" in sizes(figures)
    assert "**" in limits(figures).split("\n\n", 1)[1]
    assert all(what in limits(figures) for what in LIMITS.values())
    assert "0.9" not in simulated(figures).split("\n")[0]


def test_the_command_writes_its_figures(tmp_path, monkeypatch, capsys):
    """From a file of costs, without calibration; options that do not fit together end with one line."""
    costs, out = tmp_path / "costs.json", tmp_path / "figures.json"
    costs.write_text(json.dumps({"costs": COSTS.to_json()}))
    options = ["--measured", str(costs), "--jobs", "500", "--out", str(out), "--users", "1e6"]
    options += ["--events-per-second", "4000", "--requests-per-second", "500"]
    monkeypatch.setattr(sys, "argv", ["fleet", *options])
    main()
    figures = json.loads(out.read_text())
    assert figures["costs"] == COSTS.to_json()
    assert figures["fleets"][0]["today"]["works"]
    monkeypatch.setattr(sys, "argv", ["fleet", *options, "600"])
    with pytest.raises(SystemExit):
        main()
    assert "as many numbers" in capsys.readouterr().err
