"""Evaluates a bundle on the last tenth of a log: each event is scored as of its time, by the engine that serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evaluation.auc_difference import AucDifference, auc_difference
from evaluation.baseline import running_means_scores
from evaluation.freshness import FreshnessPoint
from evaluation.frontier import MeasuredPoint, measured_frontier, spread_thresholds
from evaluation.left_out import LeftOutPoint
from evaluation.metrics import auc, expected_calibration_error, log_loss
from evaluation.reliability import Reliability, reliability
from event_data.event_log import EventLog
from models.bundle import Bundle
from schemas.messages import Interaction
from training.calibrate import NEVER
from training.exit_costs import TokenCosts, confidences, exit_heads
from training.progress import Reporter, Silent
from training.replay import Example, Replay, replay_examples
from training.train_exits import predict
from worker.engine.engine import ScoringEngine
from worker.engine.scoring_job import ScoringJob
from worker.engine.settings import EngineSettings

SCORED_AT_ONCE: Final = 256
"""Examples are made and scored in groups of this size, so that memory stays bounded."""
MOST_EVENTS: Final = 100_000
"""Of a longer last tenth, so many of the latest are scored."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of one way to score."""

    auc: float
    log_loss: float
    calibration_error: float

    @classmethod
    def of(cls, labels: Floats, ctrs: Floats) -> Quality:
        """From labels (events,) and scores (events,)."""
        return cls(auc(labels, ctrs), log_loss(labels, ctrs), expected_calibration_error(labels, ctrs))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of an evaluation on the last tenth of a log."""

    events: int
    click_rate: float
    served: Quality
    """At the base threshold, as scored without load."""
    heads: tuple[Quality, ...]
    """If every candidate left at this head; the last is full depth."""
    graph: Quality
    """With the graph score alone."""
    baseline_auc: float
    """AUC of the user's running click rate plus the item's."""
    lead: AucDifference
    """AUC as served minus that baseline."""
    limit_auc: float | None
    """Of a synthetic log: AUC of the probabilities that its clicks were drawn with."""
    exit_layers: tuple[int, ...]
    exit_shares: tuple[float, ...]
    """Share of candidates that leave at each head."""
    token_layer_share: float
    """Token-layers computed at the base threshold, as a share of those at full depth."""
    base_threshold: float
    head_reliability: tuple[Reliability, ...]
    """Of each head, if every candidate left there."""
    exit_reliability: tuple[Reliability, ...]
    """Of each head, over the candidates that left there at the base threshold."""
    frontier: tuple[MeasuredPoint, ...]
    """By rising threshold, from the floor to full depth."""
    freshness: tuple[FreshnessPoint, ...] = ()
    """From frozen state to state as of each event; empty unless asked for."""
    left_out: tuple[LeftOutPoint, ...] = ()
    """Without each kind of evidence, after the one with all of it; empty unless asked for."""

    def figures(self) -> dict[str, float]:
        """The main figures by name, for the bundle's manifest."""
        return {
            "auc": self.served.auc,
            "log_loss": self.served.log_loss,
            "calibration_error": self.served.calibration_error,
            **{f"auc_layer_{layer}": head.auc for layer, head in zip(self.exit_layers[:-1], self.heads, strict=False)},
            "auc_full_depth": self.heads[-1].auc,
            "log_loss_full_depth": self.heads[-1].log_loss,
            "auc_graph": self.graph.auc,
            "auc_running_means": self.baseline_auc,
            "auc_over_running_means_low": self.lead.low,
            "auc_over_running_means_high": self.lead.high,
            **({} if self.limit_auc is None else {"auc_limit": self.limit_auc}),
            "token_layer_share": self.token_layer_share,
            "events": float(self.events),
        }


def evaluate(
    bundle: Bundle, log: EventLog, reporter: Reporter | None = None, most_events: int = MOST_EVENTS
) -> Evaluation:
    """Score the last tenth of the log.

    Args:
        bundle: the model.
        log: events in time order; all before the last tenth are only taken in.
        reporter: shows how far it has come.
        most_events: of a longer last tenth, so many of the latest are scored.
    """
    return score_last_tenth(bundle, log, reporter, most_events)[0]


def score_last_tenth(
    bundle: Bundle, log: EventLog, reporter: Reporter | None = None, most_events: int = 100_000
) -> tuple[Evaluation, Floats]:
    """As `evaluate`, with the scores (events,) as served, to compare with those of others event by event."""
    reporter = reporter or Silent()
    first = first_tested(log, most_events)
    history, tested = log.interactions[:first], log.interactions[first:]
    replay = Replay.for_bundle(log.items, bundle)
    replay.advance(history)
    scorer = _Scorer(bundle)
    with reporter.step("last tenth, as of each event", len(tested)) as advance:
        waiting: list[Example] = []
        for example in replay_examples(replay, tested, repeat(1), first):
            waiting.append(example)
            if len(waiting) == SCORED_AT_ONCE:
                scorer.score(waiting)
                advance(len(waiting))
                waiting = []
        scorer.score(waiting)
        advance(len(waiting))
    baseline = running_means_scores(history, tested)
    return scorer.evaluation(tested, baseline, log.click_probabilities[first:]), scorer.served()


def first_tested(log: EventLog, most_events: int) -> int:
    """Index of the first event to score."""
    return max(log.split().validation_end, len(log.interactions) - most_events)


class _Scorer:
    """Scores examples in every way there is and keeps the answers."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._engine: ScoringEngine[ScoringJob] = ScoringEngine(
            bundle.model, bundle.calibration, EngineSettings(prefix_cache_bytes=0)
        )
        self._labels: list[Floats] = []
        self._graph: list[Floats] = []
        self._logits: list[Floats] = []
        self._costs: list[TokenCosts] = []
        self._served: list[ScoringJob] = []

    def score(self, examples: Sequence[Example]) -> None:
        """Take examples in, one candidate each."""
        if not examples:
            return
        calibration = self._bundle.calibration
        self._logits.append(np.asarray(predict(self._bundle.model, examples), np.float64))
        self._costs.append(TokenCosts.of(examples))
        self._graph.append(calibration.graph_ctr(np.concatenate([example.graph_features() for example in examples])))
        self._labels.append(np.concatenate([example.labels for example in examples]).astype(np.float64))
        # At the base threshold, as a worker without load answers.
        self._served += self._engine.score([example.prompt for example in examples])

    def served(self) -> Floats:
        """Scores (events,) as served."""
        return np.concatenate([result.ctr for result in self._served])

    def evaluation(
        self, tested: Sequence[Interaction], baseline: Sequence[float], click_probabilities: Sequence[float]
    ) -> Evaluation:
        """The figures over all examples taken in, which are those of the tested events, in their order.

        Args:
            tested: the events.
            baseline: (events,) scores of the running means.
            click_probabilities: (events,) of the synthetic world, or empty.
        """
        labels, logits, graph = map(np.concatenate, (self._labels, self._logits, self._graph))
        served = self.served()
        left_at = np.concatenate([result.exit_layer for result in self._served])
        calibration, layers = self._bundle.calibration, self._bundle.model.config.exit_layers
        heads = np.stack([calibration.ctr(head, logits[:, head]) for head in range(calibration.heads)], axis=1)
        run = sum(result.token_layers_run for result in self._served)
        return Evaluation(
            events=len(labels),
            click_rate=float(labels.mean()),
            served=Quality.of(labels, served),
            heads=tuple(Quality.of(labels, heads[:, head]) for head in range(heads.shape[1])),
            graph=Quality.of(labels, graph),
            baseline_auc=auc(labels, baseline),
            lead=auc_difference(labels, served, baseline, [event.user_id for event in tested]),
            limit_auc=auc(labels, click_probabilities) if click_probabilities else None,
            exit_layers=layers,
            exit_shares=tuple(float((left_at == layer).mean()) for layer in layers),
            token_layer_share=run / sum(result.token_layers_full for result in self._served),
            base_threshold=calibration.base_threshold,
            head_reliability=tuple(reliability(labels, heads[:, head]) for head in range(heads.shape[1])),
            exit_reliability=tuple(reliability(labels[left_at == at], served[left_at == at]) for at in layers),
            frontier=self._frontier(labels, logits, heads),
        )

    def _frontier(self, labels: Floats, logits: Floats, ctrs: Floats) -> tuple[MeasuredPoint, ...]:
        """From logits and calibrated click rates (events, heads) of the heads."""
        calibration, layers = self._bundle.calibration, self._bundle.model.config.exit_layers
        confidence, costs = confidences(calibration, logits), TokenCosts.joined(self._costs)
        thresholds = spread_thresholds(confidence, calibration.floor_threshold, NEVER, calibration.base_threshold)
        exits = [(threshold, exit_heads(confidence, threshold)) for threshold in thresholds]
        return measured_frontier(labels, ctrs, exits, lambda heads: costs.share(layers, heads))
