"""The metrics of live quality."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.observability.telemetry import Metrics
from worker.outcomes.quality import OutcomeFigures, Quality


class OutcomeMetrics:
    """Live quality by model version.

    Args:
        metrics: where they are shown.
    """

    def __init__(self, metrics: Metrics) -> None:
        by_model = ("model_version",)
        self._auc = metrics.gauge("live_auc", "AUC of the latest scores with an outcome", by_model)
        self._log_loss = metrics.gauge(
            "live_log_loss", "Log loss of the latest scores with an outcome, in nats", by_model
        )
        self._calibration = metrics.gauge(
            "live_calibration_ratio", "Mean of the latest scores with an outcome over the share clicked", by_model
        )
        self._outcomes = metrics.gauge("live_outcomes", "Scores that live AUC and calibration are of", by_model)
        self._positives = metrics.gauge("live_positives", "Positive outcomes among these scores", by_model)
        self._of_models = (
            self._auc, self._log_loss, self._calibration, self._outcomes, self._positives,
        )  # fmt: skip
        self._waiting = metrics.gauge("live_waiting_scores", "Published scores whose outcome is awaited")
        self._scores = metrics.counter(
            "live_scores_total", "Published scores by whether an outcome followed", ("outcome",)
        )
        self._counted = {"settled": 0, "expired": 0, "skipped": 0}

    def note(self, figures: OutcomeFigures, qualities: Mapping[str, Quality]) -> None:
        """Shows live quality by model version; AUC and calibration not before there are some."""
        for gauge in self._of_models:
            gauge.clear()  # a figure that is no longer known is no longer shown, nor a model that has retired
        for model_version, quality in qualities.items():
            self._outcomes.labels(model_version).set(quality.scores)
            self._positives.labels(model_version).set(quality.positives)
            if quality.bins:
                self._auc.labels(model_version).set(quality.auc)
                self._log_loss.labels(model_version).set(quality.log_loss)
                self._calibration.labels(model_version).set(quality.calibration_ratio)
        self._waiting.set(figures.waiting)
        for outcome, before in self._counted.items():
            count = getattr(figures, outcome)
            self._scores.labels(outcome).inc(count - before)
            self._counted[outcome] = count
