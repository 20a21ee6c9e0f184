"""What `benchmarks.overload` computes from the answers to a run's requests. Pure: nothing here needs a broker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.paired_auc import PairCounts
from loadgen.open_loop import Answer
from loadgen.plan import Impression
from schemas.messages import ImpressionScores

BUDGET_MS: Final = 200
RECOVERED_SHARE: Final = 0.95
"""A worker has recovered once it scores at this share of its base threshold or above."""

Answers = Sequence[Answer]


def summary(answers: Answers, budget_ms: int = BUDGET_MS) -> dict[str, float]:
    """The figures of one run, AUC apart. Within budget: readable in time; scored late: late even before it was sent."""
    answered = [answer for answer in answers if answer.scores is not None]
    latencies = np.array([answer.latency_ms for answer in answered] or [np.nan], np.float64)
    records = [answer.scores for answer in answered if answer.scores]
    scored = [score for record in records for score in record.scores]
    thresholds = np.array([record.exit_threshold for record in records] or [np.nan])
    made_by = [score.made_by for score in scored]
    return {
        "requests": len(answers),
        "answered_share": len(answered) / max(1, len(answers)),
        "within_budget_share": float((latencies <= budget_ms).sum() / max(1, len(answers))),
        "scored_late_share": sum(record.lateness_ms > 0 for record in records) / max(1, len(records)),
        "p50_ms": float(np.percentile(latencies, 50)),
        "p99_ms": float(np.percentile(latencies, 99)),
        "mean_exit_layer": float(np.mean([score.exit_layer for score in scored])) if scored else float("nan"),
        **{
            f"share_{way}": made_by.count(way) / max(1, len(made_by))
            for way in ("confident", "final", "deadline", "graph")
        },
        "threshold_mean": float(thresholds.mean()),
        "threshold_std": float(thresholds.std()),
    }


def whole_passes(requests: float, pages: int) -> int:
    """How often to send a fixed set of pages so that about so many requests are sent; at least once."""
    return max(1, round(requests / pages))


def pair_counts(answers: Answers, pages: Sequence[Impression]) -> PairCounts:
    """Pairs of the fixed set, from the answers to whole passes over it; a last pass that is not whole is left out.

    Args:
        answers: in the order of sending: page 0, page 1, …, page 0, …
        pages: the fixed set; all pages have equally many candidates.
    """
    passes = len(answers) // len(pages)
    ctrs = [_ctrs(answer) for answer in answers[: passes * len(pages)]]
    labels = np.array([page.labels for page in pages], bool)
    return PairCounts.of(labels, np.array(ctrs).reshape(passes, *labels.shape))


def recovery_s(scored: Iterable[tuple[float, float]], base: float, end_s: float, until_s: float) -> float | None:
    """From the end of a burst until the worker scores at its base threshold again and stays there.

    Args:
        scored: for each request when it was scored (seconds since the start) and the exit threshold in force.
        base: the threshold without load.
        end_s: when the burst ends.
        until_s: when the next change of load begins; what is scored from then on does not count.

    Returns:
        Seconds from the end until the first request that was scored at base, as were all after it; None if the last
        request was still scored below.
    """
    after = sorted(pair for pair in scored if end_s <= pair[0] < until_s)
    recovered_at_s = None
    for scored_s, threshold in after:
        if threshold < base * RECOVERED_SHARE:
            recovered_at_s = None
        elif recovered_at_s is None:
            recovered_at_s = scored_s
    return None if recovered_at_s is None else recovered_at_s - end_s


def scored_at(answers: Answers) -> list[tuple[float, float]]:
    """When each request was scored, in seconds since the start of the run, and the threshold in force."""
    return [(_scored_s(answer, answer.scores), answer.scores.exit_threshold) for answer in answers if answer.scores]


def longest(recoveries: Sequence[float | None]) -> float | None:
    """The longest recovery; None if there is one that did not end."""
    ended = [seconds for seconds in recoveries if seconds is not None]
    return max(ended) if ended and len(ended) == len(recoveries) else None


def _scored_s(answer: Answer, scores: ImpressionScores) -> float:
    return answer.arrival.due_s + (scores.scored_time_ms - scores.created_time_ms) / 1000


def _ctrs(answer: Answer) -> NDArray[Any]:
    """The CTRs (candidates,) in the order of the request; NaN if it was not answered."""
    by_item = {score.item_id: score.ctr for score in answer.scores.scores} if answer.scores else {}
    return np.array([by_item.get(item_id, np.nan) for item_id in answer.arrival.impression.item_ids])
