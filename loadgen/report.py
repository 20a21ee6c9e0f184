"""Evaluates a replay: quality beside a baseline, latency against the budget, losses, how scores were made.

Pure: it is given records and numbers, so that it can be tested without a broker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from evaluation.baseline import RunningMeans
from evaluation.metrics import auc, log_loss
from loadgen.plan import Impression, Plan
from schemas.messages import ImpressionScores, Interaction

PERCENTILES: Final = (50.0, 95.0, 99.0)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one replay; `to_builtins` gives them as JSON."""

    requests: int
    answered: int
    lost: int
    duplicated: int
    candidates: int
    auc: float
    log_loss: float
    baseline_auc: float
    """AUC of running user mean plus item mean, on the same candidates, knowing the same events."""
    latency_ms: dict[str, float]
    """Percentiles of the time from the request's creation until its scores were read from the topic."""
    within_budget_share: float
    made_by: dict[str, int]
    exit_layers: dict[str, int]
    late: int


@dataclass(slots=True)
class Answers:
    """Scores as they arrive, with the time at which each was read."""

    by_request: dict[str, ImpressionScores] = field(default_factory=dict)
    read_ms: dict[str, float] = field(default_factory=dict)
    duplicated: int = 0

    def add(self, scores: ImpressionScores, read_ms: float) -> None:
        """Add one record. Of several for one request the first counts; the others are duplicates."""
        if scores.request_id in self.by_request:
            self.duplicated += 1
            return
        self.by_request[scores.request_id] = scores
        self.read_ms[scores.request_id] = read_ms


def make_report(plan: Plan, sent: Sequence[Impression], answers: Answers) -> Report:
    """Evaluate the answers to the impressions that were sent."""
    answered = [impression for impression in sent if impression.request_id in answers.by_request]
    judged = [(impression, answers.by_request[impression.request_id]) for impression in answered]
    labels, ctrs = _labels_and_ctrs(judged)
    latencies = np.array([answers.read_ms[scores.request_id] - scores.created_time_ms for _, scores in judged])
    budgets = np.array([scores.deadline_ms - scores.created_time_ms for _, scores in judged])
    scored = [score for _, scores in judged for score in scores.scores]
    exits = Counter(score.exit_layer for score in scored)
    return Report(
        requests=len(sent),
        answered=len(judged),
        lost=len(sent) - len(judged),
        duplicated=answers.duplicated,
        candidates=len(labels),
        auc=auc(labels, ctrs),
        log_loss=log_loss(labels, ctrs),
        baseline_auc=_baseline_auc(plan.history, answered),
        latency_ms=_percentiles(latencies),
        within_budget_share=float(np.mean(latencies <= budgets)) if judged else 0.0,
        made_by=dict(Counter(score.made_by for score in scored)),
        exit_layers={str(layer): count for layer, count in sorted(exits.items())},
        late=sum(scores.status == "late" for _, scores in judged),
    )


def _labels_and_ctrs(
    judged: Iterable[tuple[Impression, ImpressionScores]],
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Labels and scores of all candidates, matched by item, whatever order the scores came in."""
    labels, ctrs = [], []
    for impression, scores in judged:
        by_item = {score.item_id: score.ctr for score in scores.scores}
        for item_id, label in zip(impression.item_ids, impression.labels, strict=True):
            labels.append(label)
            ctrs.append(by_item[item_id])
    return np.array(labels, bool), np.array(ctrs, np.float64)


def _percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    return {f"p{percent:.0f}": round(float(np.percentile(values, percent)), 2) for percent in PERCENTILES}


def _baseline_auc(history: Iterable[Interaction], impressions: Iterable[Impression]) -> float:
    """AUC of the user's plus the item's mean click rate, as known when each request was made."""
    means = RunningMeans()
    for event in history:
        means.add(event)
    labels: list[bool] = []
    scores: list[float] = []
    for impression in impressions:
        labels += impression.labels
        scores += [means.score(event.user_id, event.item_id) for event in impression.events]
        for event in impression.events:
            means.add(event)
    return auc(np.array(labels, bool), np.array(scores))
