"""Would int4 weights pay on a CPU? A decoder layer's four products with them, beside this engine's formats.

torch's kernel for 4-bit weights (groups of 32 or 128 inputs share a scale and an offset; activations in bfloat16) takes
turns with the engine's own layers in float32, bfloat16 and int8. A turn goes through as many layers as the model has,
or as hold 200 million weights, so that weights come from memory as they do in a model; times are medians. Weights and
inputs are random: times do not depend on them, and errors of rounding hardly.

    python -m benchmarks.weight_formats --out out/weight-formats.json

The JSON has for every shape and format `megabytes` of a layer's weights, `error` (of the products, relative to those in
float64), and `ms` a layer by number of rows.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from benchmarks.engine_rounds import timed
from benchmarks.engine_shapes import SHAPES
from benchmarks.harness import finish
from benchmarks.markdown import table
from runtime.process.allocator import keep_freed_memory
from worker.engine.transformer.linear import Linear, pack_linear

MOST_WEIGHTS: Final = 200_000_000
HEAD_DIM: Final = {"smollm2-135m": 64, "qwen2.5-0.5b": 64, "qwen2.5-7b": 128, "tiny": 16}
ERROR_ROWS: Final = 64
LEVELS: Final = 15
"""Steps from the least to the largest weight of a group in four bits."""


class Int4Linear:
    """torch's product with weights of four bits.

    Args:
        weight: (outputs, inputs).
        group: neighbouring inputs with a scale and an offset of their own.
    """

    def __init__(self, weight: Tensor, group: int) -> None:
        groups = weight.float().view(len(weight), -1, group)
        least, most = groups.amin(dim=2), groups.amax(dim=2)  # (outputs, groups)
        scale = ((most - least) / LEVELS).clamp_min(1e-12)
        levels = ((groups - least[..., None]) / scale[..., None]).round().clamp(0, LEVELS).to(torch.int32)
        self._weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels.view(weight.shape), 1)  # noqa: SLF001 - public under no other name
        # Level 8 is the offset.
        self._scale = torch.stack((scale, least + 8 * scale), dim=-1).transpose(0, 1).bfloat16().contiguous()
        self._group = group

    def __call__(self, rows: Tensor) -> Tensor:
        """(rows, inputs) -> (rows, outputs)."""
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(  # noqa: SLF001 - as above
            rows, self._weight, self._group, self._scale
        )
        return product


class Format(NamedTuple):
    """A number format of weights."""

    activations: torch.dtype
    bits: float  # of a weight, with its share of scales
    step: int  # numbers of inputs are multiples of it
    pack: Callable[[Tensor], Linear]


FORMATS: Final[Mapping[str, Format]] = {
    "float32": Format(torch.float32, 32, 1, lambda weight: pack_linear(weight, None, "float32")),
    "bfloat16": Format(torch.bfloat16, 16, 1, lambda weight: pack_linear(weight.bfloat16(), None, "bfloat16")),
    "int8": Format(torch.float32, 8, 1, lambda weight: pack_linear(weight, None, "int8")),
    "int4, groups of 32": Format(torch.bfloat16, 5, 32, partial(Int4Linear, group=32)),
    "int4, groups of 128": Format(torch.bfloat16, 4.25, 128, partial(Int4Linear, group=128)),
}


@torch.inference_mode()
def main() -> None:
    """Every shape in turn."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shapes", default="smollm2-135m,qwen2.5-0.5b,qwen2.5-7b", help=f"of {', '.join(SHAPES)}")
    arguments.add_argument("--rows", default="1,32,256,1024", help="of the products")
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--threads", type=int, default=os.cpu_count())
    arguments.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    given = arguments.parse_args()
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    rows = [int(number) for number in given.rows.split(",")]
    figures = {shape: _measured(shape, rows, given.rounds) for shape in given.shapes.split(",")}
    print(_table(figures, rows))
    finish(figures, given.out)


def _measured(shape: str, rows: Sequence[int], rounds: int) -> dict[str, Any]:
    """Figures by format."""
    torch.manual_seed(0)
    weights = [torch.randn(outputs, inputs) / inputs**0.5 for outputs, inputs in products(shape)]
    size = sum(weight.numel() for weight in weights)
    layers = max(1, min(SHAPES[shape]["num_hidden_layers"], MOST_WEIGHTS // size))
    formats = {
        name: form for name, form in FORMATS.items() if all(weight.shape[1] % form.step == 0 for weight in weights)
    }
    packed = {
        name: [[form.pack(weight) for weight in weights] for _ in range(layers)] for name, form in formats.items()
    }
    figures: dict[str, Any] = {
        name: {
            "megabytes": size * form.bits / 8 / 2**20,
            "error": _error(weights, packed[name][0], form.activations),
            "ms": {},
        }
        for name, form in formats.items()
    }
    for number in rows:
        inputs = [torch.randn(number, weight.shape[1]) for weight in weights]
        turns = {
            name: partial(_pass, packed[name], [x.to(form.activations) for x in inputs])
            for name, form in formats.items()
        }
        for turn in turns.values():
            turn()
        seconds = [{name: timed(turn) for name, turn in turns.items()} for _ in range(rounds)]
        for name in formats:
            figures[name]["ms"][str(number)] = 1e3 * statistics.median(turn[name] for turn in seconds) / layers
    return figures


def products(shape: str) -> list[tuple[int, int]]:
    """(outputs, inputs) of a layer's products: queries with keys and values, output, gate with up, down."""
    told = SHAPES[shape]
    hidden, inner = told["hidden_size"], told["intermediate_size"]
    width = HEAD_DIM[shape] * told["num_attention_heads"]
    of_keys = HEAD_DIM[shape] * told["num_key_value_heads"]
    return [(width + 2 * of_keys, hidden), (hidden, width), (2 * inner, hidden), (hidden, inner)]


def _pass(layers: Sequence[Sequence[Linear]], inputs: Sequence[Tensor]) -> None:
    for layer in layers:
        for linear, rows in zip(layer, inputs, strict=True):
            linear(rows)


def _error(weights: Sequence[Tensor], packed: Sequence[Linear], dtype: torch.dtype) -> float:
    """Root mean square of the products' errors by that of the products; inputs are such that lose nothing."""
    wrong = whole = 0.0
    for weight, linear in zip(weights, packed, strict=True):
        rows = torch.randn(ERROR_ROWS, weight.shape[1]).bfloat16()
        exact = rows.double() @ weight.double().T
        wrong += float((linear(rows.to(dtype)).double() - exact).square().sum())
        whole += float(exact.square().sum())
    return math.sqrt(wrong / whole)


def _table(figures: Mapping[str, Any], rows: Sequence[int]) -> str:
    return table(
        ("shape", "format", "MB a layer", "error", *(f"ms, {number} rows" for number in rows)),
        (
            (
                shape,
                name,
                f"{told['megabytes']:.1f}",
                f"{told['error']:.2%}",
                *(f"{ms:.3f}" for ms in told["ms"].values()),
            )
            for shape, formats in figures.items()
            for name, told in formats.items()
        ),
    )


if __name__ == "__main__":
    main()
