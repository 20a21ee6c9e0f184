"""Who competes in `benchmarks.engine`, by name, and the files that they load."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, get_args

import torch

from benchmarks.engine_contestants import FULL_DEPTH, Contestant, Naive, OnnxInt8, Ours, export_int8
from benchmarks.engine_llama import FORMATS, INSTALL, LlamaCpp, in_format, is_installed, write_gguf
from models.calibration import ExitCalibration
from models.exit_model import ExitModel
from worker.engine.settings import EngineSettings, Precision

Make = Callable[[ExitModel, ExitCalibration], Contestant]
"""Makes a contestant of a model, which it takes over, and its calibration."""
LARGEST_BATCH: Final = 8_192
LAYERS_ELSEWHERE: Final = ("onnx", "llama")
"""How the names of those begin that take their layers from a file of their own."""


def export(model: ExitModel, folder: Path) -> None:
    """Writes the layers as ONNX Runtime and, where it is installed, llama.cpp read them."""
    export_int8(model, folder)
    if not is_installed():
        sys.stderr.write(f"llama.cpp does not compete: it is not installed ({INSTALL})\n")
        return
    whole = folder / "float32.gguf"
    write_gguf(model, whole)
    for name in FORMATS:
        in_format(whole, folder / f"{name}.gguf", name)
    whole.unlink()


def competing(folder: Path, threads: int, exits: float) -> dict[str, Make]:
    """All contestants by name.

    Args:
        folder: what `export` has written.
        threads: of everyone.
        exits: the threshold of those that let candidates leave early.
    """
    field: dict[str, Make] = {
        "naive": Naive,
        "naive_bfloat16": lambda model, calibration: Naive(model, calibration, torch.bfloat16),
        "onnx": lambda model, calibration: OnnxInt8(model, calibration, folder / "int8.onnx", threads),
    }
    for precision in get_args(Precision):
        field[_named("full_depth", precision)] = _ours(precision, FULL_DEPTH)
        field[_named("exit", precision)] = _ours(precision, exits)
    for name in FORMATS:
        if (file := folder / f"{name}.gguf").exists():
            field[f"llama_{name}"] = _llama(file, threads)
    return field


def made(field: Mapping[str, Make], model: ExitModel, calibration: ExitCalibration) -> dict[str, Contestant]:
    """Every contestant, ready to score."""
    return {name: make(copy.deepcopy(model), calibration) for name, make in field.items()}


def _named(depth: str, precision: Precision) -> str:
    return depth if precision == "float32" else f"{depth}_{precision}"


def _ours(precision: Precision, threshold: float) -> Make:
    settings = EngineSettings(precision=precision, max_batch_tokens=LARGEST_BATCH)
    return lambda model, calibration: Ours(model, calibration, settings, threshold)


def _llama(file: Path, threads: int) -> Make:
    return lambda model, calibration: LlamaCpp(model, calibration, file, threads)
