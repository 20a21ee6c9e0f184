"""The learning curve: worlds of several sizes, and from where on layers pay."""

from dataclasses import replace

import pytest

from benchmarks import learning_curve
from benchmarks.ablation_tables import learning_curve as curve_table
from benchmarks.learning_curve import Options, measure, pays_from, world
from event_data.synthetic import SyntheticSize
from training.presets import DEMO
from training.progress import Silent

TINY = replace(
    DEMO,
    graph=replace(DEMO.graph, dim=8, steps=20),
    exits=replace(DEMO.exits, hidden=16, intermediate=32, attention_heads=2, exit_layers=(1, 2), epochs=1),
    vocabulary=400,
)


def row(trained_on, *lows):
    """A row of figures whose gains have these lower ends."""
    return {"trained_on": trained_on, "exit_layers": [1, 2, 4], "gain": [{"low": low} for low in lows]}


def test_a_layer_pays_from_the_size_on_from_which_it_always_gains():
    """A gain that is lost again at a larger size was chance."""
    rows = [row(10, 0.1, -0.1), row(20, -0.1, 0.1), row(40, 0.1, 0.1)]
    assert pays_from(rows) == {"2": 40, "4": 20}
    assert pays_from([row(10, 0.0, -0.1)]) == {"2": None, "4": None}


def test_a_larger_world_has_more_users_and_items_who_meet_as_often():
    """Impressions in the training part as asked; per user and item as many as usual."""
    usual = SyntheticSize()
    log = world(2_000)
    assert log.split().train_end == pytest.approx(2_000, rel=0.02)
    share = len(log.interactions) / (usual.sessions * usual.shown)
    assert len(log.items) == pytest.approx(share * usual.items, rel=0.1)


@pytest.mark.slow
def test_each_size_is_trained_and_scored_by_every_head(monkeypatch):
    """The table has a row per size, with the limit of its world; what is done is told before the next size begins."""
    monkeypatch.setattr(learning_curve, "MOST_TESTED", 60)
    first, figures = measure(Options((500, 900), TINY), Silent())
    assert first["sizes"] == [500]
    assert len(first["starts"]["random"]["rows"]) == 1
    rows = figures["starts"]["random"]["rows"]
    assert [row["trained_on"] for row in rows] == pytest.approx([500, 900], abs=5)  # whole sessions
    for row in rows:
        assert len(row["auc"]) == 2
        assert len(row["gain"]) == 1
        assert 0.5 < row["limit_auc"] <= 1
    told = curve_table(figures)
    assert len(told.splitlines()) == 2 + 2 + 2
    assert "layer 2" in told.splitlines()[-1]
