"""The engine's speed on a GPU, with random weights in the shapes of real checkpoints.

Speed does not depend on the weights' values, so nothing needs to be downloaded. Every request has a prefix of 512
tokens and suffixes of 64; all is scored at full depth in bfloat16.

    python -m benchmarks.engine_shapes --device cuda --out out/engine-shapes.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import Qwen2Config

from benchmarks.engine_operations import operations
from benchmarks.harness import finish
from models.calibration import CONFIDENCE_FEATURES, ExitCalibration
from models.exit_model import ExitConfig, ExitModel
from models.features import FEATURES, GRAPH_FEATURES
from models.prompt import Prompt
from models.token_sequence import TokenSequence
from worker.budget.controller import FixedThreshold
from worker.engine.engine import ScoringEngine
from worker.engine.scoring_job import ScoringJob
from worker.engine.settings import EngineSettings, Precision

SHAPES: Final[dict[str, dict[str, int]]] = {
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "qwen2.5-0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
    "qwen2.5-7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
VOCABULARY: Final = 32_000
"""Smaller than the checkpoints': the time of an embedding lookup does not depend on it, and it saves memory."""
FULL_DEPTH: Final = 2.0
MATRIX: Final = {"cuda": 8192, "cpu": 2048}


def main() -> None:
    """Every shape with few and with many candidates."""
    arguments = _arguments()
    shapes = arguments.shapes.split(",")
    figures = {
        f"{shape}, {candidates} candidates": _measure(shape, candidates, arguments)
        for shape in shapes
        for candidates in (20, 200)
    }
    finish(figures | {"device": _device_name(arguments.device)}, arguments.out)


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description="Candidates per second in the shapes of real checkpoints.")
    arguments.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments.add_argument("--shapes", default="smollm2-135m,qwen2.5-0.5b,qwen2.5-7b", help=f"of {', '.join(SHAPES)}")
    arguments.add_argument("--prefix", type=int, default=512, help="tokens")
    arguments.add_argument("--suffix", type=int, default=64, help="tokens")
    arguments.add_argument("--in-flight", type=int, default=8, help="requests scored together for throughput")
    arguments.add_argument("--rounds", type=int, default=30, help="requests alone for the percentiles")
    arguments.add_argument("--max-batch-tokens", type=int, default=16_384)
    arguments.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    return arguments.parse_args()


def _measure(shape: str, candidates: int, arguments: argparse.Namespace) -> dict[str, Any]:
    model = _random_model(shape, arguments.device)
    prompt = Prompt(_words(arguments.prefix), [_words(arguments.suffix)] * candidates)
    needed = operations(model, prompt)
    layers = model.backbone.config.num_hidden_layers
    precision: Precision = "bfloat16"
    settings = EngineSettings(
        precision=precision,
        max_batch_tokens=arguments.max_batch_tokens,
        device=arguments.device,
        prefix_cache_bytes=0,
    )
    engine: ScoringEngine[ScoringJob] = ScoringEngine(
        model, neutral_calibration(), settings, FixedThreshold(FULL_DEPTH)
    )
    engine.warm_up()
    together = min(_seconds(engine, [prompt] * arguments.in_flight) for _ in range(5)) / arguments.in_flight
    alone_ms = [1000 * _seconds(engine, [prompt]) for _ in range(arguments.rounds)]
    rate = _matmul_rate(arguments.device)
    return {
        "layers": layers,
        "candidates_per_second": candidates / together,
        "mfu": needed / together / rate,
        "matmul_tflops": rate / 1e12,
        "p50_ms": float(np.percentile(alone_ms, 50)),
        "p99_ms": float(np.percentile(alone_ms, 99)),
    }


def _random_model(shape: str, device: str) -> ExitModel:
    decoder = Qwen2Config(vocab_size=VOCABULARY, max_position_embeddings=8192, **SHAPES[shape])
    exits = ExitConfig((decoder.num_hidden_layers,), 64, max(64, len(FEATURES)), len(FEATURES))
    # Created on the device in bfloat16: a float32 copy of 7 billion weights would not fit as well.
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return ExitModel.from_config(decoder, exits).eval()
    finally:
        torch.set_default_dtype(default)


def _words(length: int) -> TokenSequence:
    width = max(64, len(FEATURES))
    nothing = np.zeros(0, np.int32)
    words = np.random.default_rng(0).integers(0, VOCABULARY, length).astype(np.int32)
    return TokenSequence(words, nothing, nothing.astype(np.int8), np.zeros((0, width), np.float32))


def neutral_calibration(heads: int = 1) -> ExitCalibration:
    """Logits are log-odds, and nothing leaves before the last head."""
    features = len(GRAPH_FEATURES)
    return ExitCalibration(
        slopes=np.ones(heads),
        intercepts=np.zeros(heads),
        confidence_weights=np.zeros((heads - 1, len(CONFIDENCE_FEATURES))),
        tolerance=0.1,
        base_threshold=1.0,
        floor_threshold=0.0,
        frontier=(),
        graph_mean=np.zeros(features),
        graph_scale=np.ones(features),
        graph_weights=np.zeros(features),
        graph_bias=0.0,
    )


def _seconds(engine: ScoringEngine[ScoringJob], prompts: list[Prompt]) -> float:
    """From submission until every score is on the host."""
    started_s = time.perf_counter()
    engine.score(prompts)
    return time.perf_counter() - started_s


def _matmul_rate(device: str) -> float:
    """Floating-point operations per second of a large bfloat16 product."""
    size = MATRIX[device]
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(10):
        started_s = time.perf_counter()
        product = matrix @ matrix
        float(product[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - started_s)
    return float(2 * size**3 / min(seconds))


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


if __name__ == "__main__":
    main()
