"""An evaluation as an example for the report."""

from datetime import UTC, datetime

import numpy as np

from cli.evaluation_report.page import Subject
from evaluation.auc_difference import AucDifference
from evaluation.frontier import MeasuredPoint
from evaluation.reliability import reliability
from training.evaluate import Evaluation, Quality

SUBJECT = Subject("films", "films", "abc123", datetime(2026, 1, 2, 3, 4, tzinfo=UTC))


def example_evaluation():
    """Of a model with three heads whose rates are right, and where one exit is never used."""
    dice = np.random.default_rng(0)
    rates = dice.uniform(0.02, 0.98, 3_000)
    labels = (dice.random(3_000) < rates).astype(np.float64)
    left = dice.integers(0, 2, 3_000)
    told = reliability(labels, rates)
    exits = tuple(reliability(labels[left == head], rates[left == head]) for head in range(3))
    return Evaluation(
        events=3_000,
        click_rate=float(labels.mean()),
        served=Quality(0.7877, 0.5498, 0.018),
        heads=(Quality(0.7871, 0.5503, 0.019), Quality(0.7875, 0.5499, 0.02), Quality(0.7880, 0.5495, 0.02)),
        graph=Quality(0.7594, 0.5757, 0.022),
        baseline_auc=0.7449,
        lead=AucDifference(0.0428, 0.0381, 0.0475),
        limit_auc=0.8539,
        exit_layers=(1, 2, 4),
        exit_shares=(0.5, 0.5, 0.0),
        token_layer_share=0.2505,
        base_threshold=0.9,
        head_reliability=(told, told, told),
        exit_reliability=exits,
        frontier=(
            MeasuredPoint(0.0, 0.7871, 0.5503, 0.01),
            MeasuredPoint(0.9, 0.7877, 0.5498, 0.2505),
            MeasuredPoint(1.0, 0.7880, 0.5495, 1.0),
        ),
    )
