r"""How good are our scores, beside those of simpler models on the same split? READ FIRST: `measure` names every step.

A bundle is trained (or taken), evaluated on the last tenth of the log, and timed at full depth and with exits, both in
the engine that serves, in alternating rounds. Peers (`benchmarks.quality_peers`) have the same split and know the same
events.

    python -m benchmarks.quality --data ../shared/datasets/ml-100k --out out/quality-ml-100k.json
    python -m benchmarks.quality --data ../shared/datasets/book-crossing --click-at 8 \
        --out out/quality-book-crossing.json
"""

from __future__ import annotations

import copy
import statistics
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from benchmarks.engine_contestants import FULL_DEPTH, Ours
from benchmarks.engine_requests import requests_of
from benchmarks.harness import add_bundle, add_click_at, exit_on_error, finish, parser
from benchmarks.quality_peers import embeddings_alone, figures_of, peer_figures, statistics_parts
from evaluation.metrics import auc
from event_data.event_log import EventLog
from event_data.load import load_log
from event_data.suitability import require_suitable
from models.bundle import Bundle
from runtime.errors import ExitstreamError
from runtime.process.allocator import keep_freed_memory
from training.clicks import is_click
from training.evaluate import Evaluation, Floats, score_last_tenth
from training.presets import DEMO, Preset
from training.progress import Reporter, reporter_for
from training.train import preset_for, train
from worker.engine.settings import EngineSettings

QUICK: Final = replace(DEMO, exits=replace(DEMO.exits, epochs=2), most_examples=20_000, most_held_out=5_000)
"""For a first look."""
REQUESTS: Final = 64
"""Of 20 candidates each; the timed rounds go through them."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured, and how.

    Attributes:
        preset: hyperparameters; the seed is that of the first training.
        bundle: a trained one to take instead of training.
        seeds: number of trainings.
        rounds: timed rounds of full depth and of exits.
        ours: whether a model of ours is measured.
        peers: whether others are.
        sentences: whether the sentence encoder, which reads every title, is among the peers.
        folder: where trained bundles are kept.
    """

    preset: Preset
    folder: Path
    bundle: Path | None = None
    seeds: int = 1
    rounds: int = 7
    ours: bool = True
    peers: bool = True
    sentences: bool = True


def main() -> None:
    """Measure and write down."""
    arguments = _arguments()
    keep_freed_memory()
    try:
        log = load_log(arguments.data, arguments.click_at)
        require_suitable(log)
        options = Options(
            preset=QUICK if arguments.quick else preset_for(log),
            folder=arguments.out.parent,
            bundle=arguments.bundle,
            seeds=arguments.seeds,
            rounds=3 if arguments.quick else 7,
            ours=not arguments.peers_only,
            peers=not arguments.no_peers,
            sentences=not arguments.quick,
        )
        figures = measure(log, options, reporter_for(Console(stderr=True)))
    except ExitstreamError as error:
        exit_on_error(error)
    finish({**figures, "quick": arguments.quick}, arguments.out)


def _arguments() -> Namespace:
    arguments = parser("Quality of our scores beside that of simpler models on the same split.")
    add_bundle(arguments)
    add_click_at(arguments)
    arguments.add_argument("--quick", action="store_true", help="a small model, few examples: for a first look")
    arguments.add_argument("--seeds", type=int, default=1, help="trainings; figures are their means")
    which = arguments.add_mutually_exclusive_group()
    which.add_argument("--peers-only", action="store_true", help="train no model of ours")
    which.add_argument("--no-peers", action="store_true", help="measure no other model")
    return arguments.parse_args()


def measure(log: EventLog, options: Options, reporter: Reporter) -> dict[str, Any]:
    """All figures of a log."""
    figures = log_figures(log)
    preset = options.preset
    ours: Floats | None = None
    if options.ours:
        bundle, runs, ours = _our_runs(log, options, reporter)
        figures |= means_of(runs) | {"runs": runs}
        graph, text, preset = bundle.graph, bundle.text, replace(preset, limits=bundle.limits)
    else:
        graph, text = embeddings_alone(log, preset, reporter)
    if not options.peers:
        return figures
    parts = statistics_parts(log, graph, text, preset, reporter)
    return figures | {"peers": peer_figures(log, parts, reporter, ours, options.sentences)}


def log_figures(log: EventLog) -> dict[str, Any]:
    """What the log holds, and for a synthetic one how far a model can get on its last tenth."""
    start = log.split().validation_end
    labels = np.array([is_click(event) for event in log.interactions[start:]])
    probabilities = log.click_probabilities[start:]
    return {
        "dataset": log.name,
        "events": len(log.interactions),
        "tested": len(labels),
        "click_rate": float(labels.mean()),
        "limit_auc": auc(labels, probabilities) if probabilities else None,
    }


def _our_runs(log: EventLog, options: Options, reporter: Reporter) -> tuple[Bundle, list[dict[str, Any]], Floats]:
    """The first bundle, the figures of each, and the first one's scores (tests,) as served."""
    if options.bundle is not None:
        bundle = Bundle.load(options.bundle)
        figures, served = _model_figures(bundle, log, options, reporter)
        return bundle, [{"train_minutes": None, **figures}], served
    trained: list[tuple[Bundle, Floats]] = []
    runs = []
    for seed in range(options.preset.seed, options.preset.seed + options.seeds):
        reporter.say(f"training with seed {seed}")
        started_s = time.perf_counter()
        folder = options.folder / f"{log.name}-quality-{seed}"
        bundle = train(log, folder, replace(options.preset, seed=seed), reporter)
        minutes = (time.perf_counter() - started_s) / 60
        figures, served = _model_figures(bundle, log, options, reporter)
        trained.append((bundle, served))
        runs.append({"seed": seed, "train_minutes": minutes, **figures})
    first, served = trained[0]
    return first, runs, served


def _model_figures(
    bundle: Bundle, log: EventLog, options: Options, reporter: Reporter
) -> tuple[dict[str, Any], Floats]:
    # The whole last tenth, however long: peers are scored on all of it too.
    evaluation, served = score_last_tenth(bundle, log, reporter, most_events=len(log.interactions))
    return ways(evaluation) | _times(bundle, log, options.rounds), served


def ways(evaluation: Evaluation) -> dict[str, Any]:
    """Figures of each way to score."""
    heads = [figures_of(head) for head in evaluation.heads]
    return {
        "full_depth": heads[-1],
        "early_exit": figures_of(evaluation.served),
        "heads": heads,
        "graph": figures_of(evaluation.graph),
        "token_layer_share": evaluation.token_layer_share,
    }


def _times(bundle: Bundle, log: EventLog, rounds: int) -> dict[str, float]:
    """Time per candidate at full depth and with exits; each round times both, one after the other, on all requests."""
    prompts = [request.prompt for request in requests_of(bundle, log, REQUESTS)]
    candidates = sum(len(prompt.suffixes) for prompt in prompts)
    thresholds = {"full_depth": FULL_DEPTH, "early_exit": bundle.calibration.base_threshold}
    engines = {
        name: Ours(copy.deepcopy(bundle.model), bundle.calibration, EngineSettings(), threshold)
        for name, threshold in thresholds.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds + 1):
        for name, engine in engines.items():
            started_s = time.perf_counter()
            engine.score(prompts)
            seconds[name].append((time.perf_counter() - started_s) / candidates)
    # The first round warms up.
    return time_figures(seconds["full_depth"][1:], seconds["early_exit"][1:])


def time_figures(full_depth: Sequence[float], early_exit: Sequence[float]) -> dict[str, float]:
    """Medians of seconds per candidate by round; what is saved is the median of the rounds' own shares, so that a slow
    phase of the machine hits both.
    """
    saved = [1 - early / full for full, early in zip(full_depth, early_exit, strict=True)]
    return {
        "full_depth_us_per_candidate": 1e6 * statistics.median(full_depth),
        "early_exit_us_per_candidate": 1e6 * statistics.median(early_exit),
        "time_saved": statistics.median(saved),
    }


def means_of(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of every figure over runs of the same shape, and the lowest and highest AUC at the base threshold."""
    aucs = [run["early_exit"]["auc"] for run in runs]
    means: dict[str, Any] = _mean([{name: run[name] for name in run if name != "seed"} for run in runs])
    return means | {"early_exit_auc_range": [min(aucs), max(aucs)]}


def _mean(values: Sequence[Any]) -> Any:  # noqa: ANN401 - what JSON can hold
    first = values[0]
    if isinstance(first, dict):
        return {name: _mean([value[name] for value in values]) for name in first}
    if isinstance(first, list):
        return [_mean(list(same_place)) for same_place in zip(*values, strict=True)]
    return None if first is None else statistics.fmean(values)


if __name__ == "__main__":
    main()
