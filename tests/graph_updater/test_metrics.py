"""What the updater tells about itself."""

from __future__ import annotations

from updater_parts import NOW_MS, click, engine, records

from graph_updater.metrics import UpdaterMetrics

PREFIX = "exitstream_updater_"


def test_freshness_is_the_age_of_events_when_published():
    """An event of a clock that is ahead counts as no age."""
    metrics = UpdaterMetrics()

    metrics.observe_freshness([NOW_MS - 100, NOW_MS - 300, NOW_MS + 50], NOW_MS)

    assert metrics.value(f"{PREFIX}freshness_seconds_count") == 3
    assert metrics.value(f"{PREFIX}freshness_seconds_sum") == 0.4
    assert metrics.value(f"{PREFIX}freshness_seconds_bucket", le=0.1) == 2


def test_of_many_events_some_are_measured_evenly():
    """The distribution stays; the time it takes does not grow with the load."""
    metrics = UpdaterMetrics()

    metrics.observe_freshness([NOW_MS - age for age in range(10_000)], NOW_MS)

    measured = metrics.value(f"{PREFIX}freshness_seconds_count")
    assert 150 <= measured <= 250
    assert abs(metrics.value(f"{PREFIX}freshness_seconds_sum") / measured - 5.0) < 0.1


def test_the_memory_of_the_state_is_told():
    """In all, and per edge, node and past interaction."""
    metrics, of = UpdaterMetrics(), engine()
    of.absorb(records([click("u", "i1")]))

    metrics.note_memory(of.memory_report())

    held = {
        per: metrics.value(f"{PREFIX}state_bytes", per=per) for per in ("edge", "node", "past_interaction", "total")
    }
    assert min(held.values()) > 0
    assert held["total"] > held["node"]
