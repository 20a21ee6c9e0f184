"""What a soak says of its run, from what was observed."""

from __future__ import annotations

import pytest

from benchmarks.soak_figures import AROUND_MS, Fault, Sample, delivery, longest_recovery, slopes
from loadgen.ledger import Ledger


def fault(began_ms=10_000.0, ended_ms=20_000.0, recovery_s=5.0):
    """A fault of ten seconds."""
    return Fault("worker killed", "worker", began_ms, ended_ms, recovery_s)


def life(program, pid, seconds, rss=lambda _: 100.0, descriptors=lambda _: 20):
    """Samples of one process, one per second."""
    return [Sample(program, pid, float(at), rss(at), descriptors(at)) for at in seconds]


def test_growth_is_the_slope_per_hour():
    """A megabyte and six descriptors a minute are 60 and 360 an hour, however many samples there are."""
    samples = life("worker", 1, range(0, 601, 10), lambda at: 200 + at / 60, lambda at: 10 + at // 10)
    told = slopes(samples, 600.0)["worker"]
    assert told["rss_slope_mb_per_hour"] == pytest.approx(60.0)
    assert told["fd_slope_per_hour"] == pytest.approx(360.0)
    assert told["rss_mb"] == 210.0


def test_the_beginning_of_a_life_is_left_out():
    """What fills up at the start and then stays is no growth."""
    samples = life("worker", 1, range(600), lambda at: min(at, 100.0))
    assert slopes(samples, 600.0)["worker"]["rss_slope_mb_per_hour"] == pytest.approx(0.0, abs=1e-6)


def test_short_lives_say_nothing():
    """A process restarted now and then has no slope; its predecessor's samples are not mixed with its own."""
    samples = life("worker", 1, range(200)) + life("worker", 2, range(200, 400), lambda _: 900.0)
    assert slopes(samples, 600.0) == {}
    longer = life("worker", 3, range(400, 1_000), lambda _: 500.0)
    assert slopes(samples + longer, 1_000.0)["worker"]["rss_slope_mb_per_hour"] == pytest.approx(0.0, abs=1e-6)


def test_latencies_that_a_fault_explains_are_left_out():
    """From a little before the fault until a little after the recovery no request counts; around it all do."""
    ledger = Ledger(["mode"])
    window = 10_000.0 - AROUND_MS, 25_000.0 + AROUND_MS
    for created, latency in [(window[0] - 1, 10.0), (*window[:1], 900.0), (window[1], 900.0), (window[1] + 1, 30.0)]:
        ledger.answer("mode", ledger.open(created), created + latency)
    told = delivery(ledger, [fault()])["mode"]
    assert (told["undisturbed"], told["p50_ms"]) == (2, 20.0)
    assert told["p99_ms"] == pytest.approx(29.8)


def test_without_a_recovery_everything_after_the_fault_is_explained():
    """A fault that never ended leaves no undisturbed requests behind it."""
    ledger = Ledger(["mode"])
    ledger.answer("mode", ledger.open(99_000.0), 99_500.0)
    told = delivery(ledger, [fault(recovery_s=None)])["mode"]
    assert (told["undisturbed"], told["p99_ms"]) == (0, None)


def test_lost_and_duplicated_requests_are_told_per_mode():
    """Each mode answers for itself."""
    ledger = Ledger(["one", "other"])
    names = [ledger.open(0.0), ledger.open(0.0)]
    for name in [*names, names[0]]:
        ledger.answer("one", name, 1.0)
    told = delivery(ledger, [])
    assert [(told[mode]["answered"], told[mode]["lost"], told[mode]["duplicates"]) for mode in ("one", "other")] == [
        (2, 0, 1),
        (0, 2, 0),
    ]


def test_the_longest_recovery_is_unknown_if_one_never_came():
    """No number may hide a fault that the system did not recover from."""
    assert longest_recovery([fault(recovery_s=2.0), fault(recovery_s=7.0)]) == 7.0
    assert longest_recovery([fault(recovery_s=2.0), fault(recovery_s=None)]) is None
    assert longest_recovery([]) is None


def test_a_fault_is_told_in_seconds_of_the_run():
    """When it began, how long it lasted, and the recovery."""
    row = fault().row(started_ms=4_000.0)
    assert (row["at_s"], row["lasted_s"], row["recovery_s"]) == (6.0, 10.0, 5.0)
    assert fault(recovery_s=None).row(0.0)["recovery_s"] is None
