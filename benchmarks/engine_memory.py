"""The memory that a worker's engine needs for a model, by number format, beside what its weights weigh.

A model with random weights is saved, then each format is loaded in a process of its own, as a worker loads it: read,
packed for the engine, and what the engine does not need given back. The JSON has for each precision `weights_mb` (what
its numbers take in that format; the table of words is in float32 for int8), `model_mb` (how much more is resident
afterwards, libraries not counted) and `times_weights`, their ratio.

    python -m benchmarks.engine_memory --out out/engine-memory.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, get_args

import torch
from transformers import LlamaConfig

from benchmarks.engine_shapes import SHAPES, neutral_calibration
from benchmarks.harness import finish
from models.exit_model import ExitConfig, ExitModel
from models.features import FEATURES
from runtime.process.allocator import keep_freed_memory, return_freed_memory
from worker.engine.engine import ScoringEngine
from worker.engine.scoring_job import ScoringJob
from worker.engine.settings import EngineSettings, Precision

VOCABULARY: Final = 49_152
"""SmolLM2's."""
_BYTES: Final[dict[str, int]] = {"float32": 4, "bfloat16": 2, "int8": 1}


def main() -> None:
    """Every number format, or with `--loaded` the figures of one in this process."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shape", choices=tuple(SHAPES), default="smollm2-135m")
    arguments.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments.add_argument("--loaded", nargs=2, metavar=("FOLDER", "PRECISION"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.loaded:
        print(json.dumps(loaded(Path(given.loaded[0]), given.loaded[1])))
        return
    if given.out is None:
        arguments.error("--out is missing")
    with tempfile.TemporaryDirectory() as folder:
        _save_random_model(given.shape, Path(folder))
        finish(
            {"shape": given.shape}
            | {precision: loaded_apart(Path(folder), precision) for precision in get_args(Precision)},
            given.out,
        )


def _save_random_model(shape: str, folder: Path) -> None:
    decoder = LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=2_048, tie_word_embeddings=True, **SHAPES[shape]
    )
    exits = ExitConfig((decoder.num_hidden_layers,), 64, 64, len(FEATURES))
    ExitModel.from_config(decoder, exits).save(folder)


def loaded_apart(folder: Path, precision: str) -> dict[str, float]:
    """What `loaded` tells, from a process of its own."""
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine_memory", "--loaded", str(folder), precision],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    figures: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return figures


def loaded(folder: Path, precision: Precision) -> dict[str, Any]:
    """Loads a saved model for the engine in this process, and tells what it takes."""
    keep_freed_memory()
    # The classes are imported when a model is first loaded; they are libraries, not model.
    LlamaConfig(num_hidden_layers=1)
    before_mb = resident_mb()
    model = ExitModel.load(folder, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    its_weights_mb = weights_mb(model, precision)
    engine: ScoringEngine[ScoringJob] = ScoringEngine(
        model,
        neutral_calibration(len(model.config.exit_layers)),
        EngineSettings(precision=precision),
        owns_model=True,
    )
    return_freed_memory()
    model_mb = resident_mb() - before_mb
    assert engine.exit_layers
    return {
        "weights_mb": its_weights_mb,
        "model_mb": model_mb,
        "times_weights": model_mb / its_weights_mb,
    }


def weights_mb(model: ExitModel, precision: Precision) -> float:
    """What the model's numbers take where its layers are in that format."""
    in_layers = {id(parameter) for parameter in model.backbone.layers.parameters()}
    # Words are in bfloat16 with the layers, but not in int8; soft tokens and heads are in float32 whatever they are.
    others = {id(parameter): 4 for parameter in model.parameters()}
    others |= {
        id(parameter): (2 if precision == "bfloat16" else 4) for parameter in model.backbone.embed_tokens.parameters()
    }
    weights = 0
    for parameter in model.parameters():
        weights += parameter.numel() * (_BYTES[precision] if id(parameter) in in_layers else others[id(parameter)])
    return weights / 2**20


def resident_mb() -> float:
    """Memory of this process that is in RAM at this moment, mapped files included, but for libraries' own files: of
    these more comes in whenever something in them runs for the first time.
    """
    resident_kb, is_library = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split(maxsplit=5)
        if not name.endswith(":"):  # where a mapping lies; its figures follow
            is_library = len(rest) == 5 and ".so" in Path(rest[4]).name
        elif name == "Rss:" and not is_library:
            resident_kb += int(rest[0])
    return resident_kb / 1024


if __name__ == "__main__":
    main()
