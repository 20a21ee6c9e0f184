"""When parts are told."""

from __future__ import annotations

from updater_parts import NOW_MS, TOPICS, base, click, engine

from graph_updater.graph.config import GraphConfig
from graph_updater.graph.shard import Shard
from graph_updater.state.updater_state import UpdaterState
from graph_updater.telling import Telling
from runtime.clock import ManualClock


def state():
    """Of one of two shards, with some clicks."""
    of = UpdaterState(GraphConfig(epsilon=0.0), base(), Shard(0, 2))
    of.apply([click(f"u{n % 3}", f"i{n % 4}", n) for n in range(12)])
    return of


def test_only_the_leader_tells():
    """A standby tells nothing; a new term begins with everything that was not told."""
    telling = Telling(state().shared, 1.0, ManualClock(NOW_MS))
    assert telling.take(None) == []
    term = object()
    assert sorted(telling.take(term)) == [f"i{n}" for n in range(4)]
    assert telling.take(term) == []
    assert sorted(telling.take(object())) == [f"i{n}" for n in range(4)]


def test_what_only_users_have_moved_waits():
    """Items that an interaction names are told at once; those that its user's embedding moves, once per interval."""
    of, clock, term = state(), ManualClock(NOW_MS), object()
    telling = Telling(of.shared, 1.0, clock)
    telling.take(term)
    of.apply([click("u0", "i5", 100)])
    assert telling.take(term) == ["i5"]
    clock.advance(1.0)
    assert sorted(telling.take(term)) == [f"i{n}" for n in range(4)]


def test_parts_are_told_although_nothing_was_read():
    """A term that begins in silence has a batch of what is owed."""
    driver = engine(state())
    driver.collect()
    assert driver.collect().batch is None
    batch = driver.collect(term=object()).batch
    assert sorted(batch.parts) == [f"i{n}" for n in range(4)]
    told = {one.key for one in driver.encode(batch) if one.topic == TOPICS.item_parts}
    assert told == {f"0-of-2/i{n}".encode() for n in range(4)}
