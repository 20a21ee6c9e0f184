"""The figures of a soak, from what was observed: pure, so that they can be tested without a broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from loadgen.ledger import Ledger

LEFT_OUT: Final = 0.25
"""The first part of a life that slopes leave out, as a share of it: caches and allocators still fill."""
LONG_ENOUGH: Final = 0.5
"""Slopes are taken of processes that lived through this share of the run."""
AROUND_MS: Final = 2_000.0
"""How long before its beginning and after its recovery a fault explains a latency."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: its name.
        target: what it was done to.
        began_ms: Unix time.
        ended_ms: when the broker was back or the process had been started again.
        recovery_s: from then until fresh requests of many users were answered in both modes; None if that never came.
    """

    kind: str
    target: str
    began_ms: float
    ended_ms: float
    recovery_s: float | None

    def row(self, started_ms: float) -> dict[str, Any]:
        """For the JSON file; times in seconds since the start of the load."""
        return {
            "kind": self.kind,
            "target": self.target,
            "at_s": round((self.began_ms - started_ms) / 1000, 1),
            "lasted_s": round((self.ended_ms - self.began_ms) / 1000, 1),
            "recovery_s": None if self.recovery_s is None else round(self.recovery_s, 2),
        }

    @property
    def window_ms(self) -> tuple[float, float]:
        """Unix times between which a request may have been slow because of it."""
        end_ms = np.inf if self.recovery_s is None else self.ended_ms + 1000 * self.recovery_s + AROUND_MS
        return self.began_ms - AROUND_MS, float(end_ms)


@dataclass(frozen=True, slots=True)
class Sample:
    """The size of one process at one moment."""

    program: str
    pid: int
    at_s: float
    rss_mb: float
    descriptors: int


def slopes(samples: Iterable[Sample], run_s: float) -> dict[str, dict[str, float]]:
    """How the memory (MB) and descriptors of each long-lived process grew per hour, by least squares.

    Args:
        samples: in the order of time.
        run_s: length of the run.
    """
    lives: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        lives.setdefault((sample.program, sample.pid), []).append(sample)
    found = {}
    for (program, _), life in lives.items():
        begin, end = life[0].at_s, life[-1].at_s
        kept = [sample for sample in life if sample.at_s >= begin + LEFT_OUT * (end - begin)]
        if end - begin < LONG_ENOUGH * run_s or len(kept) < 2:
            continue
        hours = [sample.at_s / 3600 for sample in kept]
        found[program] = {
            "rss_mb": round(kept[-1].rss_mb, 1),
            "rss_slope_mb_per_hour": round(_slope(hours, [sample.rss_mb for sample in kept]), 2),
            "fd_slope_per_hour": round(_slope(hours, [float(sample.descriptors) for sample in kept]), 2),
        }
    return found


def delivery(ledger: Ledger, faults: Sequence[Fault]) -> dict[str, dict[str, Any]]:
    """For each mode what was lost and duplicated, and the latency where no fault explains it."""
    return {
        mode: {
            "answered": ledger.sent - len(ledger.missing(mode)),
            "lost": len(ledger.missing(mode)),
            "duplicates": ledger.duplicates(mode),
            **_latencies(*ledger.latencies(mode), faults),
        }
        for mode in ledger.outputs
    }


def longest_recovery(faults: Iterable[Fault]) -> float | None:
    """The longest recovery in seconds; None if there was no fault, or one from which there was no recovery."""
    recoveries = [fault.recovery_s for fault in faults]
    known = [recovery for recovery in recoveries if recovery is not None]
    return round(max(known), 2) if known and len(known) == len(recoveries) else None


def of_all(told: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, Any]:
    """One figure of each."""
    return {name: figures[key] for name, figures in told.items()}


def _latencies(
    created_ms: NDArray[np.float64], latency_ms: NDArray[np.float64], faults: Sequence[Fault]
) -> dict[str, float | None]:
    undisturbed = np.ones(len(created_ms), bool)
    for fault in faults:
        begin_ms, end_ms = fault.window_ms
        undisturbed &= (created_ms < begin_ms) | (created_ms > end_ms)
    if not undisturbed.any():
        return {"undisturbed": 0, "p50_ms": None, "p99_ms": None}
    p50, p99 = np.percentile(latency_ms[undisturbed], (50, 99))
    return {"undisturbed": int(undisturbed.sum()), "p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}


def _slope(times: Sequence[float], values: Sequence[float]) -> float:
    return float(np.polyfit(times, values, 1)[0])
