"""Distributions count what prometheus_client's own histogram counts."""

from __future__ import annotations

import threading

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from runtime.observability import distribution
from runtime.observability.distribution import Distribution, Histogram

BOUNDS = (0.5, 1.0, 2.0)


def exposed(make) -> list[str]:
    """The samples of a metric in Prometheus' text format."""
    registry = CollectorRegistry()
    make(registry)
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#") and "_created" not in line]


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.25, 1e6]), max_size=30))
def test_what_is_exposed_is_what_the_library_would_expose(values):
    """The same buckets, counts and sum, with labels too, whatever was observed; values on a bound count below it."""

    def ours(registry):
        histogram = Histogram("some_seconds", "Some.", ("step",), BOUNDS)
        registry.register(histogram)
        for value in values:
            histogram.labels("one").observe(value)

    def theirs(registry):
        histogram = prometheus_client.Histogram("some_seconds", "Some.", ("step",), buckets=BOUNDS, registry=registry)
        for value in values:
            histogram.labels("one").observe(value)

    assert exposed(ours) == (exposed(theirs) if values else [])


def test_without_labels_it_is_exposed_from_the_start():
    """A scrape before the first value sees zeros, as with the library."""
    lines = exposed(lambda registry: registry.register(Histogram("some_seconds", "Some.", (), BOUNDS)))
    assert 'some_seconds_bucket{le="+Inf"} 0.0' in lines


def test_many_values_do_not_pile_up(monkeypatch):
    """They are counted when they are many, though nobody looks."""
    monkeypatch.setattr(distribution, "_COUNTED_TOGETHER", 10)
    some = Distribution(BOUNDS)
    for _ in range(1_005):
        some.observe(0.1)
    assert len(some._values) == 5
    assert some.buckets()[0][-1] == ("+Inf", 1_005.0)


def test_no_value_is_lost_between_threads(monkeypatch):
    """Threads observe while others count."""
    monkeypatch.setattr(distribution, "_COUNTED_TOGETHER", 7)
    some = Distribution(BOUNDS)

    def observe() -> None:
        for _ in range(20_000):
            some.observe(1.5)

    threads = [threading.Thread(target=observe) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        some.buckets()
    counts, total = some.buckets()
    assert dict(counts) == {"0.5": 0.0, "1.0": 0.0, "2.0": 80_000.0, "+Inf": 80_000.0}
    assert total == 120_000.0


def test_a_value_that_comes_while_others_are_counted_is_counted_next_time():
    """Another thread observes between the copy of the values and their removal."""
    some = Distribution(BOUNDS)

    class Busy(list):
        def __getitem__(self, key):
            taken = super().__getitem__(key)
            some._values.append(0.25)
            return taken

    some._values = Busy([1.5])
    assert some.buckets()[0][-1] == ("+Inf", 1.0)
    some._values = list(some._values)
    assert some.buckets()[0][-1] == ("+Inf", 2.0)


def test_the_time_of_a_block_is_observed_even_if_it_fails():
    """A failed piece of work took its time, too."""
    histogram = Histogram("some_seconds", "Some.", (), BOUNDS)
    with pytest.raises(ZeroDivisionError), histogram.time():
        _ = 1 / 0
    assert histogram.labels().buckets()[0][-1] == ("+Inf", 1.0)
