"""The peers of `benchmarks.quality`: fitted to the training part, tuned on the validation part, told of the test part.

- `running_means`: the user's click rate so far plus the item's, scaled to probabilities on the validation part.
- `rates_*`: click rates and counts of user and item.
- `rates_attributes_*`: these and those of the item's attributes, overall and with the user.
- `statistics_*`: the statistics that our own model reads, from the examples that it is trained on.
- `statistics_attributes_*`: both together.
- those of `benchmarks.quality_learned_peers`: networks, LightGCN, a sentence encoder.

`*` stands for logistic regression and trees. All peers see exactly the events whose examples ours sees, and every
feature is as of its event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any, Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality_learned_peers import (
    SENTENCES,
    WAYS,
    PeerData,
    PeerScores,
    learned_scores,
    sentence_scores,
)
from evaluation.auc_difference import auc_difference
from evaluation.baseline import running_means_scores
from evaluation.peers.fitting import Part, fit_logistic_regression
from evaluation.peers.running_rates import COUNT_FEATURES, graded, running_rates
from event_data.event_log import EventLog
from graph_updater.graph.base_embeddings import bundled_base
from models.calibration import sigmoid
from models.features import FEATURES
from models.graph_base import GraphBase
from models.text import Text
from training.clicks import is_click
from training.evaluate import Quality
from training.examples import graph_end, make_examples
from training.logistic import fit_logistic
from training.presets import Preset
from training.progress import Advance, Reporter
from training.replay import Example, Replay, replay_examples
from training.tokenizer import preset_tokenizer
from training.train_graph import train_graph

PRIOR_WEIGHTS: Final = (3.0, 10.0, 30.0)

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Statistics:
    """The statistics of the examples of one part, and which events they are of."""

    events: Places  # (examples,) indices into the log
    values: Floats  # (examples, statistics)

    @classmethod
    def of(cls, examples: Iterable[Example]) -> Statistics:
        """Those of examples, whose prompts need not be kept."""
        events, rows = [], []
        for example in examples:
            events.append(example.events)
            rows.append(example.prompt.statistics(len(FEATURES)))
        return cls(np.concatenate(events), np.concatenate(rows).astype(np.float64))


class Rates(NamedTuple):
    """Rates and counts as of each event of a log."""

    counts: Floats
    """(events, features) of users and items alone."""
    whole: Floats
    """(events, features) these, and those of attributes."""

    @classmethod
    def of(cls, log: EventLog, prior_weight: float) -> Self:
        """Click rates; where the log has grades, the mean grades beside them."""
        told = [running_rates(log.items, log.interactions, prior_weight)]
        if any(event.grade is not None for event in log.interactions):
            told.append(running_rates(log.items, log.interactions, prior_weight, graded))
        return cls(np.hstack([one[:, : len(COUNT_FEATURES)] for one in told]), np.hstack(told))


@dataclass(frozen=True, slots=True)
class StatisticsParts:
    """Train, validation and test part, as our own model has them."""

    train: Statistics
    validation: Statistics
    test: Statistics


def embeddings_alone(log: EventLog, preset: Preset, reporter: Reporter) -> tuple[GraphBase, Text]:
    """Tokenizer and base embeddings as training makes them, without a model: the statistics need no more."""
    torch.manual_seed(preset.seed)
    text = preset_tokenizer(log.items, preset)
    end = graph_end(log, preset)
    slice_ = log.interactions[max(0, end - preset.most_graph_events) : end]
    with reporter.step("graph: base embeddings", preset.graph.most_steps) as advance:
        return train_graph(slice_, log.items, text, preset.graph, advance), text


def statistics_parts(
    log: EventLog, graph: GraphBase, text: Text, preset: Preset, reporter: Reporter
) -> StatisticsParts:
    """Statistics of the very examples that training makes, and of the last tenth as evaluation scores it."""
    examples = make_examples(log, graph, text, preset, reporter)
    train, validation = Statistics.of(examples.train), Statistics.of([*examples.to_fit, *examples.to_test])
    del examples
    start = log.split().validation_end
    with reporter.step("last tenth, as of each event", len(log.interactions) - start) as advance:
        replay = Replay(log.items, bundled_base(graph, text), text, preset.limits)
        replay.advance(log.interactions[:start])
        tested = replay_examples(replay, log.interactions[start:], repeat(1), start)
        return StatisticsParts(train, validation, Statistics.of(_told(tested, advance)))


def peer_figures(
    log: EventLog, statistics: StatisticsParts, reporter: Reporter, ours: Floats | None = None, sentences: bool = True
) -> dict[str, Any]:
    """AUC, log loss, calibration error and chosen settings of each peer on the test part, or why it was skipped; and,
    given our own scores (tests,), our AUC minus the peer's.
    """
    scored, skipped = peer_scores(log, statistics, reporter, sentences)
    tested = [log.interactions[place] for place in statistics.test.events]
    labels = np.array([is_click(event) for event in tested])
    users = [event.user_id for event in tested]
    figures: dict[str, Any] = {name: {"skipped": reason} for name, reason in skipped.items()}
    for name, (predicted, settings) in scored.items():
        quality = figures_of(Quality.of(labels.astype(np.float64), predicted))
        lead = {} if ours is None else {"ours_minus": asdict(auc_difference(labels, ours, predicted, users))}
        figures[name] = quality | {"settings": dict(settings)} | lead
    return figures


def peer_scores(
    log: EventLog, statistics: StatisticsParts, reporter: Reporter, sentences: bool = True
) -> tuple[PeerScores, dict[str, str]]:
    """Each peer's probabilities (tests,) on the test part with its settings; and why peers were skipped.

    Args:
        log: all events.
        statistics: of our own examples; they say which events belong to which part.
        reporter: shows progress.
        sentences: whether the sentence encoder takes part.
    """
    labels = np.array([is_click(event) for event in log.interactions])
    parts = statistics.train, statistics.validation, statistics.test
    scores: PeerScores = {"running_means": (_running_means(log, statistics, labels), {})}
    with reporter.step("rates as of each event", len(PRIOR_WEIGHTS)) as advance:
        rates, prior_weight = _best_rates(log, parts, labels, advance)
    scores |= _on_columns(parts, rates, labels, prior_weight, reporter)
    by_event = np.zeros((len(log.interactions), len(FEATURES)))
    for part in parts:
        by_event[part.events] = part.values
    data = PeerData(log, labels, rates.whole, prior_weight, by_event, *(part.events for part in parts))
    scores |= learned_scores(data, reporter)
    if not sentences:
        return scores, dict.fromkeys(SENTENCES, "left out of a quick run")
    encoded, skipped = sentence_scores(data, reporter)
    return scores | encoded, skipped


def _on_columns(
    parts: tuple[Statistics, Statistics, Statistics],
    rates: Rates,
    labels: NDArray[np.bool_],
    prior_weight: float,
    reporter: Reporter,
) -> PeerScores:
    """Logistic regression and trees on rates and statistics."""
    columns: dict[str, list[Floats]] = {
        "rates": [rates.counts[part.events] for part in parts],
        "rates_attributes": [rates.whole[part.events] for part in parts],
        "statistics": [part.values for part in parts],
        "statistics_attributes": [np.hstack([part.values, rates.whole[part.events]]) for part in parts],
    }
    scores: PeerScores = {}
    with reporter.step("peers", len(columns) * len(WAYS)) as advance:
        for name, features in columns.items():
            train, validation, test = (
                Part(one, labels[part.events]) for one, part in zip(features, parts, strict=True)
            )
            prior = {} if name == "statistics" else {"prior_weight": prior_weight}
            for way, fit in WAYS.items():
                fitted = fit(train, validation)
                scores[f"{name}_{way}"] = fitted.predict(test.features), {**fitted.settings, **prior}
                advance(1, f"{name}_{way}")
    return scores


def _told(examples: Iterator[Example], advance: Advance) -> Iterator[Example]:
    for example in examples:
        yield example
        advance(len(example))


def _running_means(log: EventLog, statistics: StatisticsParts, labels: NDArray[np.bool_]) -> Floats:
    """Their sum is no probability: a logistic curve fitted on the validation part makes it one, in the same order."""
    scores = np.array(running_means_scores([], log.interactions))
    design = np.column_stack([scores, np.ones(len(scores))])
    held_out, tested = statistics.validation.events, statistics.test.events
    weights = fit_logistic(design[held_out], labels[held_out])
    return sigmoid(design[tested] @ weights)


def _best_rates(
    log: EventLog, parts: tuple[Statistics, Statistics, Statistics], labels: NDArray[np.bool_], advance: Advance
) -> tuple[Rates, float]:
    """Rates of every event, with the prior weight that the regression does best with on the
    validation part; and that weight.
    """
    train, validation, _ = (part.events for part in parts)
    tried: list[tuple[float, float, Rates]] = []
    for prior_weight in PRIOR_WEIGHTS:
        rates = Rates.of(log, prior_weight)
        fitted = fit_logistic_regression(*(Part(rates.whole[events], labels[events]) for events in (train, validation)))
        tried.append((fitted.validation_log_loss, prior_weight, rates))
        advance()
    _, prior_weight, rates = min(tried, key=lambda one: one[:2])
    return rates, prior_weight


def figures_of(quality: Quality) -> dict[str, Any]:
    """For the JSON file."""
    return {"auc": quality.auc, "log_loss": quality.log_loss, "ece": quality.calibration_error}
