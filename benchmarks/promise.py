r"""Does the promise of the exit threshold hold as often as it says? Learn-then-test on worlds whose truth is known.

A world is a finite population of answers of all heads with their labels. Held-out sets are drawn from it with
replacement; each is calibrated as a training would do it (`training.calibrate`), and the loss that the chosen threshold
has over the whole population, which is the truth for these draws, is compared with what was promised. The promise may
be broken in a share `failure_probability` of the draws. Beside it: how often a threshold chosen by eye, the lowest down
to which the tested half shows no broken promise, breaks it.

    python -m benchmarks.promise --out out/promise.json

Keys of the JSON file: `draws`, `candidates` (of each draw), `quality_loss`, `failure_probability`, `most_broken` (so
many of the draws break a promise of exactly that probability in all but one of a hundred runs), and `worlds`, for each
its `name`, `broken` and `broken_by_eye` (draws), `token_layer_share` and `token_layer_share_by_eye` (means).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from benchmarks.harness import finish
from benchmarks.markdown import Figures, percent, table
from evaluation.metrics import log_losses
from models.calibration import ExitCalibration, sigmoid
from models.features import GRAPH_FEATURES
from training.calibrate import MAX_EXCESS, NEVER, CalibrationOptions, HeldOut, calibrate
from training.exit_costs import TokenCosts, answers_at, confidences, exit_heads

LAYERS: Final = (1, 2, 4)
POPULATION: Final = 20_000
DRAWS: Final = 200
CANDIDATES: Final = 4_000
"""Of a draw; half of them are fitted to, half are tested."""
OPTIONS: Final = CalibrationOptions(auc_loss=1.0)
"""As shipped, but for the limit of the AUC: that one carries no guarantee, and would only hide a broken promise."""

Floats = NDArray[np.float64]
Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class World:
    """A population of answers.

    Attributes:
        name: what is special about it.
        logits: (population, heads) raw.
        labels: (population,).
    """

    name: str
    logits: Floats
    labels: Floats

    def drawn(self, random: Random, count: int) -> HeldOut:
        """So many candidates, with replacement."""
        places = random.integers(len(self.labels), size=count)
        return self._held_out(places)

    def whole(self) -> HeldOut:
        """The population itself."""
        return self._held_out(np.arange(len(self.labels)))

    def _held_out(self, places: NDArray[np.int64]) -> HeldOut:
        count = len(places)
        costs = TokenCosts(np.full(count, 30), np.full(count, 60), np.arange(count))
        # Exits do not read the graph's features.
        return HeldOut(self.logits[places], self.labels[places], np.zeros((count, len(GRAPH_FEATURES))), costs)


def worlds(random: Random, population: int = POPULATION) -> Iterator[World]:
    """Worlds that are hard in different ways."""
    yield _world("early heads off by chance", random, population, lambda truth: random.normal(0, 0.35, truth.shape))
    yield _world("early heads far off", random, population, lambda truth: random.normal(0, 1.0, truth.shape))
    yield _world(
        "one in fifty early answers is very wrong",
        random,
        population,
        lambda truth: np.where(random.random(truth.shape) < 0.02, -4.0 * np.sign(truth), 0.0),
    )
    yield _world("3 % clicks", random, population, lambda truth: random.normal(0, 0.5, truth.shape), shift=-4.0)


def _world(name: str, random: Random, population: int, error: Callable[[Floats], Floats], shift: float = 0.0) -> World:
    """The last head is right; the one before it errs half as much as the first."""
    truth = random.normal(shift, 1.2, population)
    first, second = error(truth - shift), error(truth - shift)
    logits = np.column_stack([truth + first, truth + second / 2, truth])
    return World(name, logits, (random.random(population) < sigmoid(truth)).astype(np.float64))


@dataclass(frozen=True, slots=True)
class Drawn:
    """What became of one draw."""

    broken: bool
    """Whether the true loss at the chosen threshold exceeds what was promised."""
    broken_by_eye: bool
    share: float
    """Token-layers at the chosen threshold, of full depth."""
    share_by_eye: float


def draw(world: World, random: Random, candidates: int = CANDIDATES, options: CalibrationOptions = OPTIONS) -> Drawn:
    """Calibrate on one draw and compare with the population."""
    to_fit, to_test = (world.drawn(random, candidates // 2) for _ in range(2))
    calibration = calibrate(to_fit, to_test, LAYERS, options)
    by_eye = threshold_by_eye(calibration, options.quality_loss)
    whole = world.whole()
    margin, share = _truth(calibration, whole, calibration.base_threshold, options)
    margin_by_eye, share_by_eye = _truth(calibration, whole, by_eye, options)
    return Drawn(margin > 0, margin_by_eye > 0, share, share_by_eye)


def threshold_by_eye(calibration: ExitCalibration, quality_loss: float) -> float:
    """The lowest threshold down to which the measured loss of the tested half stays within the promise."""
    chosen = NEVER
    for point in reversed(calibration.frontier):
        if point.metric_loss > quality_loss:
            break
        chosen = point.threshold
    return chosen


def _truth(
    calibration: ExitCalibration, whole: HeldOut, threshold: float, options: CalibrationOptions
) -> tuple[float, float]:
    """The mean of the promise's d over the population, and the share of token-layers."""
    heads = exit_heads(confidences(calibration, whole.logits), threshold)
    ctrs = np.stack([calibration.ctr(head, whole.logits[:, head]) for head in range(calibration.heads)], axis=1)
    full = log_losses(whole.labels, ctrs[:, -1])
    excess = log_losses(whole.labels, answers_at(ctrs, heads)) - (1 + options.quality_loss) * full
    return float(np.clip(excess, -MAX_EXCESS, MAX_EXCESS).mean()), whole.costs.share(LAYERS, heads)


def measure(draws: int, candidates: int, seed: int, population: int = POPULATION) -> dict[str, Any]:
    """All figures."""
    random = np.random.default_rng(seed)
    rows = []
    for world in worlds(random, population):
        drawn = [draw(world, random, candidates) for _ in range(draws)]
        rows.append(
            {
                "name": world.name,
                "broken": sum(one.broken for one in drawn),
                "broken_by_eye": sum(one.broken_by_eye for one in drawn),
                "token_layer_share": float(np.mean([one.share for one in drawn])),
                "token_layer_share_by_eye": float(np.mean([one.share_by_eye for one in drawn])),
            }
        )
    failure = OPTIONS.failure_probability
    return {
        "draws": draws,
        "candidates": candidates,
        "quality_loss": OPTIONS.quality_loss,
        "failure_probability": failure,
        "most_broken": int(binom.ppf(0.99, draws, failure)),
        "worlds": rows,
    }


def promise_table(figures: Figures) -> str:
    """How often the promise was broken, by world."""
    draws = figures["draws"]
    rows = [
        (
            world["name"],
            f"{world['broken']} of {draws}",
            percent(world["token_layer_share"]),
            f"{world['broken_by_eye']} of {draws}",
            percent(world["token_layer_share_by_eye"]),
        )
        for world in figures["worlds"]
    ]
    conditions = (
        f"{draws} draws of {figures['candidates']:,} held-out candidates from each world; promised: at most "
        f"{percent(figures['quality_loss'])} more log loss, broken with probability "
        f"{percent(figures['failure_probability'])} at most."
    )
    head = ("world", "promise broken", "token-layers", "threshold by eye: broken", "token-layers")
    return f"{conditions}\n\n" + table(head, rows)


def main() -> None:
    """Measure and write down."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    arguments.add_argument("--draws", type=int, default=DRAWS, help="held-out sets per world")
    arguments.add_argument("--candidates", type=int, default=CANDIDATES, help="held-out candidates per draw")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    finish(measure(options.draws, options.candidates, options.seed), options.out)


if __name__ == "__main__":
    main()
