"""What `benchmarks.overload` tells of the answers to a run's requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from evaluation.metrics import auc
from loadgen.open_loop import Answer

BUDGET_MS: Final = 200
NEAR_BASE: Final = 0.05
"""Within this share of the base threshold a worker counts as recovered."""

Answers = Sequence[Answer]


def summary(answers: Answers) -> dict[str, float]:
    """The figures of one run. What is within budget could be read in time; scored late is what even the worker knew."""
    answered = [answer for answer in answers if answer.scores is not None]
    latencies = np.array([answer.latency_ms for answer in answered] or [np.nan], np.float64)
    records = [answer.scores for answer in answered if answer.scores]
    scored = [score for record in records for score in record.scores]
    thresholds = np.array([record.exit_threshold for record in records] or [np.nan])
    made_by = [score.made_by for score in scored]
    return {
        "requests": len(answers),
        "answered_share": len(answered) / max(1, len(answers)),
        "within_budget_share": float((latencies <= BUDGET_MS).sum() / max(1, len(answers))),
        "scored_late_share": sum(record.lateness_ms > 0 for record in records) / max(1, len(records)),
        "p50_ms": float(np.percentile(latencies, 50)),
        "p99_ms": float(np.percentile(latencies, 99)),
        "auc": quality(answered),
        "mean_exit_layer": float(np.mean([score.exit_layer for score in scored])) if scored else float("nan"),
        **{
            f"share_{way}": made_by.count(way) / max(1, len(made_by))
            for way in ("confident", "final", "deadline", "graph")
        },
        "threshold_mean": float(thresholds.mean()),
        "threshold_std": float(thresholds.std()),
    }


def quality(answers: Answers) -> float:
    """AUC over all candidates of the answered requests."""
    labels: list[bool] = []
    ctrs: list[float] = []
    for answer in answers:
        if answer.scores is not None:
            labels += answer.arrival.impression.labels
            ctrs += [score.ctr for score in answer.scores.scores]
    return auc(labels, ctrs)


def recovery_seconds(answers: Answers, base: float, ends_s: Sequence[float]) -> float:
    """From a burst's end until the threshold is near base again; the longest of all bursts.

    Args:
        answers: of a run with bursts.
        base: the threshold without load.
        ends_s: when the bursts end, seconds after the start.
    """
    recoveries = []
    for end_s in ends_s:
        after = sorted((a for a in answers if a.scores and a.arrival.due_s >= end_s), key=lambda a: a.arrival.due_s)
        back = next((a for a in after if a.scores and a.scores.exit_threshold >= base * (1 - NEAR_BASE)), None)
        recoveries.append(back.arrival.due_s - end_s if back else float("inf"))
    return max(recoveries)
