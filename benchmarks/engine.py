"""How fast is the engine, and what do exits buy? READ FIRST: `main` names every step.

The same requests (20 candidates each, prompts of the log's last tenth as of their time) are scored by transformers as a
user would write it, by ONNX Runtime in int8, by llama.cpp where it is installed (`benchmarks.engine_llama`), and by
this engine: at full depth and with exits at the base threshold, in every number format. All in one process,
alternating; times are medians over rounds, ratios are medians of the rounds' ratios.

    python -m benchmarks.engine --data ../shared/datasets/ml-100k --out out/engine.json
    python -m benchmarks.engine --data … --backbone smollm2 --out out/engine-smollm2.json

With `--backbone` the layers are those of a checkpoint and the heads are random: times, memory and how far the answers
agree are measured, but no quality; `exit` then is the other end of what a controller chooses from, where all leave at
the first head. A bundle that was trained on a checkpoint has quality, too; it wants fewer requests than the default:

    exitstream train --data … --backbone smollm2 --exit-after 6,12,18,24,30 … --out BUNDLE
    python -m benchmarks.engine --data … --bundle BUNDLE --requests 24 --in-flight 2 --rounds 3 --frontier-requests 0 …

Keys of the JSON file, by contestant's name:

- `NAME_candidates_per_second`; `memory_mb`: resident when ready to score, the libraries not counted, in a process of
  its own, and `memory_scoring_mb`: behind the first page.
- `correlation_NAME`, `largest_difference_NAME`: of the rates with those of transformers in float32 (`naive`).
- `best`: the fastest of this engine whose AUC is within 0.001 of full depth, or, where heads are random, whose rates
  correlate to 0.99; `best_speedup`, `best_speedup_over_onnx`, `best_speedup_llama_cpp`: over `naive`, ONNX Runtime, and
  the fastest of llama.cpp's formats (`llama_cpp`).
- `mfu`, `mfu_bfloat16`: needed operations ÷ time at full depth, by what a 2,048-wide product reaches in that format.
- `memory_by_weights`: of this engine by number format, `memory_mb` ÷ what the weights weigh.
"""

from __future__ import annotations

import copy
import logging
import os
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.engine_contestant_memory import memory_of
from benchmarks.engine_contestants import FULL_DEPTH, Contestant, Ours
from benchmarks.engine_field import competing, export, made
from benchmarks.engine_inputs import Floats
from benchmarks.engine_memory import weights_mb
from benchmarks.engine_operations import operations
from benchmarks.engine_plots import FrontierRun, draw
from benchmarks.engine_requests import Request, requests_of
from benchmarks.engine_rounds import Rounds, run_rounds, timed
from benchmarks.harness import add_backbone, add_bundle, bundle_folder, exit_on_error, finish, parser
from benchmarks.untrained_bundle import save_untrained
from evaluation.metrics import auc
from event_data.event_log import EventLog
from event_data.load import load_log
from models.bundle import Bundle
from models.calibration import Criterion
from models.exit_model import ExitModel
from models.prompt import Prompt
from runtime.errors import ExitstreamError
from runtime.process.allocator import keep_freed_memory
from worker.budget.controller import FixedThreshold
from worker.engine.settings import EngineSettings

AUC_TOLERANCE: Final = 0.001
LEAST_CORRELATION: Final = 0.99
FRONTIER_POINTS: Final = 8
FRONTIER_ROUNDS: Final = 3
ALL_LEAVE: Final = 0.0
"""The threshold of exits behind random heads: everybody leaves at the first, the fastest that the engine can answer."""
HEAD_STD: Final = 0.03
"""Of random heads: their rates differ from candidate to candidate, and none is close to 0 or 1."""
SIZES: Final = {"requests": (200, 6), "in_flight": (16, 2), "rounds": (7, 3)}
"""Of a bundle's model, and of a checkpoint's, which takes seconds a page."""


def main() -> None:
    """Score, time, compare, draw."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as a worker does; all contestants gain
    log = load_log(arguments.data)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            figures = _measured(arguments, log, Path(scratch))
        except ExitstreamError as error:
            exit_on_error(error)
    finish(figures, arguments.out)


def _arguments() -> Namespace:
    arguments = parser("Candidates per second of the scoring engine against others.")
    add_bundle(arguments)
    add_backbone(arguments)
    arguments.add_argument("--requests", type=int, help="requests whose answers are compared")
    arguments.add_argument("--in-flight", type=int, help="requests scored together in a round")
    arguments.add_argument("--rounds", type=int, help="medians are over these")
    arguments.add_argument(
        "--frontier-requests", type=int, help="requests that the frontier of thresholds scores; 0: none is drawn"
    )
    arguments.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of every contestant")
    # Hides the exporter's and quantiser's warnings.
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    given = arguments.parse_args()
    for name, sizes in SIZES.items():
        if getattr(given, name) is None:
            setattr(given, name, sizes[given.backbone is not None])
    return given


def _measured(arguments: Namespace, log: EventLog, scratch: Path) -> dict[str, Any]:
    trained = arguments.backbone is None
    bundle, folder = _bundle(arguments, log, scratch / "bundle")
    requests = requests_of(bundle, log, arguments.requests)
    export(bundle.model, scratch)
    threshold = bundle.calibration.base_threshold if trained else ALL_LEAVE
    field = competing(scratch, arguments.threads, threshold)
    # One with exits takes what full depth takes.
    alone = [name for name in field if not name.startswith("exit")]
    memory = {name: memory_of(name, folder, scratch, arguments.threads) for name in alone}
    weights = {precision: weights_mb(bundle.model, precision) for precision in ("float32", "bfloat16", "int8")}
    contestants = made(field, bundle.model, bundle.calibration)
    answers = {
        name: contestant.score([request.prompt for request in requests]) for name, contestant in contestants.items()
    }
    rounds = run_rounds(contestants, requests, arguments.in_flight, arguments.rounds)
    figures = {"layers": bundle.model.backbone.config.num_hidden_layers, "requests": len(requests)}
    figures |= _memory_figures(memory, weights) | _compared(answers, requests, rounds, trained=trained)
    figures |= _engine_figures(bundle.model, contestants, requests, rounds)
    figures |= _exit_figures(bundle, contestants, requests, rounds) | {"base_threshold": threshold}
    if trained and (frontier := _frontier(bundle, requests[: arguments.frontier_requests])):
        draw(frontier, figures, arguments.out)
        figures["frontier"] = [point.figures() for point in frontier]
    return figures


def _bundle(arguments: Namespace, log: EventLog, scratch: Path) -> tuple[Bundle, Path]:
    """The trained bundle, or one on a checkpoint, and its folder."""
    if arguments.backbone is None:
        folder = bundle_folder(arguments.bundle, log)
        return Bundle.load(folder), folder
    save_untrained(arguments.backbone, arguments.layers, log, scratch)
    bundle = Bundle.load(scratch)
    torch.manual_seed(0)
    for head in bundle.model.heads:
        torch.nn.init.normal_(head.linear.weight, std=HEAD_STD)  # type: ignore[union-attr, arg-type]
    return bundle, scratch


def _memory_figures(memory: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]) -> dict[str, Any]:
    ours = {"float32": "full_depth", "bfloat16": "full_depth_bfloat16", "int8": "full_depth_int8"}
    return {
        "memory_mb": {name: told["loaded_mb"] for name, told in memory.items()},
        "memory_scoring_mb": {name: told["scoring_mb"] for name, told in memory.items()},
        "weights_mb": dict(weights),
        "memory_by_weights": {
            precision: memory[name]["loaded_mb"] / weights[precision] for precision, name in ours.items()
        },
    }


def _compared(
    answers: Mapping[str, Floats], requests: Sequence[Request], rounds: Rounds, *, trained: bool
) -> dict[str, Any]:
    """Speed and answers side by side. See the module for what `best` is."""
    correlations = {name: float(np.corrcoef(ctrs, answers["naive"])[0, 1]) for name, ctrs in answers.items()}
    figures: dict[str, Any] = {f"correlation_{name}": value for name, value in correlations.items()}
    figures |= {f"largest_difference_{name}": _largest(ctrs, answers["naive"]) for name, ctrs in answers.items()}
    ours = [name for name in answers if name.startswith(("exit", "full_depth"))]
    if trained:
        aucs = {name: _auc(ctrs, requests) for name, ctrs in answers.items()}
        figures |= {f"auc_{name}": value for name, value in aucs.items()}
        good = [name for name in ours if aucs[name] >= aucs["full_depth"] - AUC_TOLERANCE]
    else:
        good = [name for name in ours if correlations[name] >= LEAST_CORRELATION]
    best = min(good, key=rounds.median)
    llama = min((name for name in answers if name.startswith("llama")), key=rounds.median, default=None)
    return figures | {
        "exit_speedup": rounds.speedup("exit", over="naive"),
        **{f"{name}_candidates_per_second": 1 / rounds.median(name) for name in answers},
        "full_depth_speedup": rounds.speedup("full_depth", over="naive"),
        "full_depth_bfloat16_speedup": rounds.speedup("full_depth_bfloat16", over="naive"),
        "full_depth_bfloat16_speedup_over_bfloat16": rounds.speedup("full_depth_bfloat16", over="naive_bfloat16"),
        "best": best,
        "best_speedup": rounds.speedup(best, over="naive"),
        "best_speedup_over_onnx": rounds.speedup(best, over="onnx"),
        "llama_cpp": llama,
        "best_speedup_llama_cpp": None if llama is None else rounds.speedup(best, over=llama),
        "onnx_is_faster_than_naive": rounds.speedup("onnx", over="naive") > 1,
    }


def _largest(ctrs: Floats, others: Floats) -> float:
    return float(np.abs(ctrs - others).max())


def _auc(ctrs: Floats, requests: Sequence[Request]) -> float:
    """Over the candidates whose outcome is known."""
    labels = np.concatenate([request.labels for request in requests])
    known = ~np.isnan(labels)
    return auc(labels[known] > 0, ctrs[known])


def _engine_figures(
    model: ExitModel, contestants: Mapping[str, Contestant], requests: Sequence[Request], rounds: Rounds
) -> dict[str, Any]:
    """Figures of this engine alone at full depth: where its time goes, and how long one request alone takes."""
    prompts = [request.prompt for request in requests]
    candidates = sum(len(prompt.suffixes) for prompt in prompts)
    needed = sum(operations(model, prompt) for prompt in prompts) / candidates
    figures: dict[str, Any] = {}
    for name, ending, precision in (
        ("full_depth", "", "float32"),
        ("full_depth_bfloat16", "_bfloat16", "bfloat16"),
    ):
        full = contestants[name]
        assert isinstance(full, Ours)
        rate = statistics.median(rounds.matmul_rates[precision])
        figures |= {
            f"outside_model_share{ending}": _outside_model(full, prompts),
            f"mfu{ending}": needed / rounds.median(name) / rate,
            f"matmul_gflops{ending}": rate / 1e9,
            **_alone(full, prompts, f"{name}_"),
        }
    return figures


def _exit_figures(
    bundle: Bundle, contestants: Mapping[str, Contestant], requests: Sequence[Request], rounds: Rounds
) -> dict[str, Any]:
    """What exits save, at the base threshold or, of random heads, where all leave at the first."""
    early = contestants["exit"]
    assert isinstance(early, Ours)
    prompts = [request.prompt for request in requests]
    results = early.results(prompts)
    run = sum(result.token_layers_run for result in results)
    share = run / sum(result.token_layers_full for result in results)
    time_share = rounds.median("exit") / rounds.median("full_depth")
    layers = np.concatenate([result.exit_layer for result in results])
    return {
        "token_layers_share": share,
        "time_saved_per_token_layers_saved": (1 - time_share) / (1 - share) if share < 1 else None,
        "exit_layer_shares": {str(layer): float((layers == layer).mean()) for layer in bundle.model.config.exit_layers},
        "exit_outside_model_share": _outside_model(early, prompts),
        **_alone(early, prompts, ""),
    }


def _outside_model(contestant: Ours, prompts: Sequence[Prompt]) -> float:
    """Share of the engine's time spent on packing, exits and scheduling."""
    before = replace(contestant.engine.counters)
    started_s = time.perf_counter()
    contestant.score(prompts)
    elapsed_s = time.perf_counter() - started_s
    return 1 - (contestant.engine.counters.model_s - before.model_s) / elapsed_s


def _alone(contestant: Ours, prompts: Sequence[Prompt], prefix: str) -> dict[str, float]:
    """Percentiles of one request's time with nothing else in flight."""
    times_ms = [1000 * timed(contestant.score, [prompt]) for prompt in prompts]
    return {f"{prefix}p{percent}_ms": float(np.percentile(times_ms, percent)) for percent in (50, 99)}


def _frontier(bundle: Bundle, requests: Sequence[Request]) -> list[FrontierRun]:
    """AUC against time for thresholds spread over the confidences that occur, by both criteria."""
    if not requests:
        return []
    prompts = [request.prompt for request in requests]
    labels = np.concatenate([request.labels for request in requests])
    known = ~np.isnan(labels)
    candidates = len(labels)
    points: list[FrontierRun] = []
    criteria: tuple[Criterion, ...] = ("calibrated", "ratio")
    for criterion in criteria:
        settings = EngineSettings(criterion=criterion)
        contestant = Ours(copy.deepcopy(bundle.model), bundle.calibration, settings, FULL_DEPTH)
        for threshold in _thresholds(contestant, prompts):
            contestant.engine.controller = FixedThreshold(threshold)
            ctrs: Floats = contestant.score(prompts)
            seconds = statistics.median(timed(contestant.score, prompts) for _ in range(FRONTIER_ROUNDS))
            quality = auc(labels[known] > 0, ctrs[known])
            points.append(FrontierRun(criterion, float(threshold), 1e6 * seconds / candidates, quality))
    return points


def _thresholds(contestant: Ours, prompts: Sequence[Prompt]) -> Floats:
    """From where all leave at the first head to where none leaves early."""
    traces = [contestant.engine.trace(prompt).confidence[:, :-1] for prompt in prompts]
    inner = np.quantile(np.concatenate(traces), np.linspace(0, 1, FRONTIER_POINTS))
    return np.append(inner, FULL_DEPTH)


if __name__ == "__main__":
    main()
