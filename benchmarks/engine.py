"""How fast is the engine, and what do exits buy? READ FIRST: `main` names every step.

The same requests (20 candidates each, prompts of the log's last tenth as of their time) are scored by transformers as a
user would write it, by ONNX Runtime in int8, and by this engine: at full depth, with exits at the base threshold, and
with exits in int8 and bfloat16. All in one process, alternating; times are medians over rounds.

    python -m benchmarks.engine --data ../shared/datasets/ml-100k --out out/engine.json
"""

from __future__ import annotations

import logging
import os
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch

from benchmarks.engine_contestants import FULL_DEPTH, Contestant, Floats, Naive, OnnxInt8, Ours
from benchmarks.engine_plots import FrontierRun, draw
from benchmarks.engine_requests import Request, requests_of
from benchmarks.harness import add_bundle, bundle_folder, exit_on_error, finish, parser
from evaluation.metrics import auc
from event_data.load import load_log
from models.bundle import Bundle
from models.calibration import Criterion
from models.exit_model import ExitModel
from models.prompt import Prompt
from runtime.errors import ExitstreamError
from runtime.process.allocator import keep_freed_memory
from worker.budget.controller import FixedThreshold
from worker.engine.settings import EngineSettings, Precision

AUC_TOLERANCE: Final = 0.001
FRONTIER_POINTS: Final = 8
FRONTIER_ROUNDS: Final = 3
MATRIX: Final = 2048


def main() -> None:
    """Score, time, compare, draw."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as a worker does; all contestants gain
    log = load_log(arguments.data)
    try:
        bundle = Bundle.load(bundle_folder(arguments.bundle, log))
    except ExitstreamError as error:
        exit_on_error(error)
    requests = requests_of(bundle, log, arguments.requests)
    contestants = _contestants(bundle, arguments.threads)
    aucs = {name: _auc(contestant, requests) for name, contestant in contestants.items()}
    rounds = _rounds(contestants, requests, arguments)
    figures = _figures(rounds, aucs) | _engine_figures(bundle, contestants, requests, rounds)
    frontier = _frontier(bundle, requests)
    draw(frontier, figures, arguments.out)
    finish(figures | {"frontier": [point.figures() for point in frontier]}, arguments.out)


def _arguments() -> Namespace:
    arguments = parser("Candidates per second of the scoring engine against transformers and ONNX Runtime.")
    add_bundle(arguments)
    arguments.add_argument("--requests", type=int, default=200, help="requests whose AUC is measured")
    arguments.add_argument("--in-flight", type=int, default=16, help="requests scored together in a round")
    arguments.add_argument("--rounds", type=int, default=7, help="medians are over these")
    arguments.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of every contestant")
    # Hides the exporter's and quantiser's warnings.
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    return arguments.parse_args()


def _contestants(bundle: Bundle, threads: int) -> dict[str, Contestant]:
    base = bundle.calibration.base_threshold

    def ours(precision: Precision, threshold: float) -> Ours:
        return Ours(bundle, EngineSettings(precision=precision), threshold)

    return {
        "naive": Naive(bundle),
        "onnx": OnnxInt8(bundle, threads),
        "full_depth": ours("float32", FULL_DEPTH),
        "exit": ours("float32", base),
        "exit_int8": ours("int8", base),
        "exit_bfloat16": ours("bfloat16", base),
    }


def _auc(contestant: Contestant, requests: Sequence[Request]) -> float:
    """Over the candidates whose outcome is known."""
    ctrs = contestant.score([request.prompt for request in requests])
    labels = np.concatenate([request.labels for request in requests])
    known = ~np.isnan(labels)
    return auc(labels[known] > 0, ctrs[known])


@dataclass(frozen=True, slots=True)
class Rounds:
    """Seconds per candidate by contestant, and the speed of a matrix product in the same rounds."""

    seconds: Mapping[str, Sequence[float]]
    matmul_rates: Sequence[float]  # floating-point operations per second

    def median(self, name: str) -> float:
        """Seconds per candidate of the middle round."""
        return statistics.median(self.seconds[name])

    def speedup(self, name: str, over: str) -> float:
        """How many times as fast: the median of the rounds' ratios, so that a slow phase of the machine hits both."""
        pairs = zip(self.seconds[over], self.seconds[name], strict=True)
        return statistics.median(slow / fast for slow, fast in pairs)


def _rounds(contestants: Mapping[str, Contestant], requests: Sequence[Request], arguments: Namespace) -> Rounds:
    """Every contestant in turn scores the same few requests; then the next few."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    rates: list[float] = []
    matrix = torch.randn(MATRIX, MATRIX)
    for number in range(arguments.rounds + 1):
        chosen = [requests[(number * arguments.in_flight + i) % len(requests)] for i in range(arguments.in_flight)]
        prompts = [request.prompt for request in chosen]
        candidates = sum(len(prompt.suffixes) for prompt in prompts)
        for name, contestant in contestants.items():
            contestant.score(prompts[:1])  # untimed: the contestant before has filled the caches
            seconds[name].append(_timed(contestant.score, prompts) / candidates)
        product = min(_timed(torch.mm, matrix, matrix) for _ in range(3))
        rates.append(2 * MATRIX**3 / product)
    # The first round warms up.
    return Rounds({name: times[1:] for name, times in seconds.items()}, rates[1:])


def _timed(call: Callable[..., object], *arguments: object) -> float:
    started_s = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started_s


def _figures(rounds: Rounds, aucs: Mapping[str, float]) -> dict[str, Any]:
    """The comparison. Best is the fastest of ours whose AUC is within the tolerance of full depth."""
    ours = [name for name in aucs if name.startswith("exit") or name == "full_depth"]
    good = [name for name in ours if aucs[name] >= aucs["full_depth"] - AUC_TOLERANCE]
    best = min(good, key=rounds.median)
    rates = {f"{name}_candidates_per_second": 1 / rounds.median(name) for name in aucs}
    return rates | {
        "full_depth_speedup": rounds.speedup("full_depth", over="naive"),
        "exit_speedup": rounds.speedup("exit", over="naive"),
        "best": best,
        "best_speedup": rounds.speedup(best, over="naive"),
        "best_speedup_over_onnx": rounds.speedup(best, over="onnx"),
        "onnx_is_faster_than_naive": rounds.speedup("onnx", over="naive") > 1,
        **{f"auc_{name}": value for name, value in aucs.items()},
    }


def _engine_figures(
    bundle: Bundle, contestants: Mapping[str, Contestant], requests: Sequence[Request], rounds: Rounds
) -> dict[str, Any]:
    """Figures of this engine alone: where its time goes, and how long one request alone takes."""
    full, early = contestants["full_depth"], contestants["exit"]
    assert isinstance(full, Ours)
    assert isinstance(early, Ours)
    prompts = [request.prompt for request in requests]
    results = early.results(prompts)
    run = sum(result.token_layers_run for result in results)
    share = run / sum(result.token_layers_full for result in results)
    time_share = rounds.median("exit") / rounds.median("full_depth")
    layers = np.concatenate([result.exit_layer for result in results])
    candidates = sum(len(prompt.suffixes) for prompt in prompts)
    needed = sum(operations(bundle.model, prompt) for prompt in prompts) / candidates
    return {
        "token_layers_share": share,
        "time_saved_per_token_layers_saved": (1 - time_share) / (1 - share) if share < 1 else None,
        "exit_layer_shares": {str(layer): float((layers == layer).mean()) for layer in bundle.model.config.exit_layers},
        "outside_model_share": _outside_model(full, prompts),
        "exit_outside_model_share": _outside_model(early, prompts),
        "mfu": needed / rounds.median("full_depth") / statistics.median(rounds.matmul_rates),
        "matmul_gflops": statistics.median(rounds.matmul_rates) / 1e9,
        "base_threshold": bundle.calibration.base_threshold,
        **_alone(early, prompts, ""),
        **_alone(full, prompts, "full_depth_"),
    }


def operations(model: ExitModel, prompt: Prompt) -> float:
    """Floating-point operations that full depth needs, the prefix once, the last layer for the answers alone."""
    decoder = model.backbone.config
    attention = model.backbone.layers[0].self_attn
    hidden, queries = decoder.hidden_size, decoder.num_attention_heads * attention.head_dim
    keys_values = 2 * decoder.num_key_value_heads * attention.head_dim
    prefix, suffixes = len(prompt.prefix), prompt.suffix_lengths
    tokens, answers = prompt.tokens, len(suffixes)
    per_answer = 2 * (2 * hidden * queries + 3 * hidden * decoder.intermediate_size)
    pairs = prefix**2 / 2 + (suffixes * prefix + suffixes**2 / 2).sum()
    last_pairs = (prefix + suffixes).sum()
    layer = tokens * (per_answer + 2 * hidden * keys_values) + 4 * queries * pairs
    last = tokens * 2 * hidden * keys_values + answers * per_answer + 4 * queries * last_pairs
    return float((decoder.num_hidden_layers - 1) * layer + last)


def _outside_model(contestant: Ours, prompts: Sequence[Prompt]) -> float:
    """Share of the engine's time spent on packing, exits and scheduling."""
    before = replace(contestant.engine.counters)
    started_s = time.perf_counter()
    contestant.score(prompts)
    elapsed_s = time.perf_counter() - started_s
    return 1 - (contestant.engine.counters.model_s - before.model_s) / elapsed_s


def _alone(contestant: Ours, prompts: Sequence[Prompt], prefix: str) -> dict[str, float]:
    """Percentiles of one request's time with nothing else in flight."""
    times_ms = [1000 * _timed(contestant.score, [prompt]) for prompt in prompts]
    return {f"{prefix}p{percent}_ms": float(np.percentile(times_ms, percent)) for percent in (50, 99)}


def _frontier(bundle: Bundle, requests: Sequence[Request]) -> list[FrontierRun]:
    """AUC against time for thresholds spread over the confidences that occur, by both criteria."""
    prompts = [request.prompt for request in requests]
    labels = np.concatenate([request.labels for request in requests])
    known = ~np.isnan(labels)
    candidates = len(labels)
    points: list[FrontierRun] = []
    criteria: tuple[Criterion, ...] = ("calibrated", "ratio")
    for criterion in criteria:
        contestant = Ours(bundle, EngineSettings(criterion=criterion), FULL_DEPTH)
        for threshold in _thresholds(contestant, prompts):
            contestant.engine.controller = FixedThreshold(threshold)
            ctrs: Floats = contestant.score(prompts)
            seconds = statistics.median(_timed(contestant.score, prompts) for _ in range(FRONTIER_ROUNDS))
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
