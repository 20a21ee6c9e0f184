"""The peers of `benchmarks.quality` that learn vectors, beside the rates of user, item and attributes.

- `din`, `dcn_v2`, `sim`: networks on ids, words, attribute values, the user's past and all rates.
- `light_gcn_logistic`: the score of a LightGCN, trained on the clicks of the training part and frozen from then on, and
  all rates. On the training part its score knows the answers, so the regression is fitted to one half of the validation
  part (every other event), and settings are chosen on the other half.
- `sentences_*`: the similarity of the candidate's title to those that the user clicked and did not click, by a
  sentence encoder that nothing is trained of, and all rates. `sentences_statistics_*`: the same beside the statistics
  of our own model in place of the rates; it tells what titles add to these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evaluation.peers.fit_networks import fit_network
from evaluation.peers.fitting import Fitted, Part, fit_logistic_regression, fit_trees
from evaluation.peers.light_gcn import GRID, light_gcn_features
from evaluation.peers.network_inputs import NetworkInputs, network_inputs
from evaluation.peers.networks import NETWORKS
from evaluation.peers.sentence_encoder import SentenceEncoder
from evaluation.peers.title_similarity import NEAREST, title_similarities
from event_data.event_log import EventLog
from runtime.errors import MissingDependency
from training.progress import Advance, Reporter

WAYS: Final[Mapping[str, Callable[[Part, Part], Fitted]]] = {"logistic": fit_logistic_regression, "trees": fit_trees}
SENTENCES: Final = tuple(f"{name}_{way}" for name in ("sentences", "sentences_statistics") for way in WAYS)

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
PeerScores = dict[str, tuple[Floats, Mapping[str, float]]]
"""By peer its probabilities (tests,) on the test part, and its settings."""


@dataclass(frozen=True, slots=True)
class PeerData:
    """What these peers learn from.

    Attributes:
        log: all events.
        clicked: (events,)
        rates: (events, features) as of each event.
        prior_weight: of the rates, for the JSON file.
        statistics: (events, features) of our own model as of each event; zeros for events outside the parts.
        train, validation, test: places of the events of each part.
    """

    log: EventLog
    clicked: NDArray[np.bool_]
    rates: Floats
    prior_weight: float
    statistics: Floats
    train: Places
    validation: Places
    test: Places

    def part(self, features: Floats, places: Places) -> Part:
        """One part of features (events, k)."""
        return Part(features[places], self.clicked[places])


def learned_scores(data: PeerData, reporter: Reporter) -> PeerScores:
    """Scores of the networks and of LightGCN."""
    scores: PeerScores = {}
    with reporter.step("networks and LightGCN", len(NETWORKS) + len(GRID)) as advance:
        log = data.log
        inputs = network_inputs(log.items, log.interactions, data.clicked, data.rates, data.train)
        prior = {"prior_weight": data.prior_weight}
        for name, kind in NETWORKS.items():
            fitted = fit_network(kind, inputs, data.train, data.validation)
            scores[name] = fitted.predict(data.test), {**fitted.settings, **prior}
            advance(1, name)
        scores["light_gcn_logistic"] = _light_gcn(data, inputs, advance)
    return scores


def sentence_scores(data: PeerData, reporter: Reporter) -> tuple[PeerScores, dict[str, str]]:
    """Scores with the sentence encoder, or for each of `SENTENCES` why there are none."""
    titles = {item.item_id: item.title for item in data.log.items if item.title}
    if not titles:
        return {}, dict.fromkeys(SENTENCES, "no item has a title")
    try:
        encoder = SentenceEncoder()
    except MissingDependency as error:
        return {}, dict.fromkeys(SENTENCES, str(error))
    with reporter.step("sentence encoder", 1 + len(SENTENCES)) as advance:
        encoded = encoder(list(titles.values()))
        # The last row is that of items without a title: zero is similar to nothing.
        vectors = np.vstack([encoded, np.zeros_like(encoded[:1])])
        row_of = {item_id: row for row, item_id in enumerate(titles)}
        rows = np.array([row_of.get(event.item_id, len(encoded)) for event in data.log.interactions])
        similarities = title_similarities(data.log.interactions, data.clicked, vectors, rows)
        advance(1, "titles")
        return similarity_scores(data, similarities, advance), {}


def similarity_scores(data: PeerData, similarities: Floats, advance: Advance) -> PeerScores:
    """Scores with similarities (numbers of nearest titles, events, 2), beside the rates and beside our statistics."""
    scores: PeerScores = {}
    for name, beside, prior in (
        ("sentences", data.rates, {"prior_weight": data.prior_weight}),
        ("sentences_statistics", data.statistics, {}),
    ):
        for way, fit in WAYS.items():
            predicted, settings = _best_similarities(data, similarities, beside, fit)
            scores[f"{name}_{way}"] = predicted, {**settings, **prior}
            advance(1, f"{name}_{way}")
    return scores


def _light_gcn(data: PeerData, inputs: NetworkInputs, advance: Advance) -> tuple[Floats, Mapping[str, float]]:
    tried: list[tuple[Fitted, Floats, Mapping[str, float]]] = []
    for settings in GRID:
        features = np.hstack([light_gcn_features(inputs, data.train, settings), data.rates])
        fit_on, choose_on = (data.part(features, data.validation[first::2]) for first in (0, 1))
        tried.append((fit_logistic_regression(fit_on, choose_on), features[data.test], asdict(settings)))
        advance(1, f"LightGCN, {settings.layers} layers")
    predicted, chosen = _best(tried)
    return predicted, {**chosen, "prior_weight": data.prior_weight}


def _best_similarities(
    data: PeerData, similarities: Floats, beside: Floats, fit: Callable[[Part, Part], Fitted]
) -> tuple[Floats, Mapping[str, float]]:
    """Beside other features, the number of most similar titles that does best on the validation part."""
    tried: list[tuple[Fitted, Floats, Mapping[str, float]]] = []
    for nearest, similar in zip(NEAREST, similarities, strict=True):
        features = np.hstack([similar, beside])
        fitted = fit(data.part(features, data.train), data.part(features, data.validation))
        tried.append((fitted, features[data.test], {"nearest": nearest}))
    return _best(tried)


def _best(tried: Sequence[tuple[Fitted, Floats, Mapping[str, float]]]) -> tuple[Floats, Mapping[str, float]]:
    fitted, tested, settings = min(tried, key=lambda one: one[0].validation_log_loss)
    return fitted.predict(tested), {**settings, **fitted.settings}
