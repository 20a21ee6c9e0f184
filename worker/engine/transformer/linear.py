"""A linear layer's weights, laid out once for the device and number format that the engine runs with.

On a CPU the products go through oneDNN with prepacked weights, as in compiled graphs: on AVX-512 machines that can be
twice as fast as the BLAS call behind `torch.nn.functional.linear`. oneDNN builds a kernel for each number of
rows, which takes longer than most products and half a megabyte: so numbers of rows are rounded up, and products made in
slices of few sizes, whose kernels warm-up builds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from worker.engine.settings import Precision

ROW_STEP: Final = 64
ANSWER_STEP: Final = 32
SLICE_SIZES: Final = (1_024, 512, 384, 256, 128, 64, 32)
"""Rows of a product, so that any multiple of `ROW_STEP` up to the largest is three of them at most. Larger products
hardly run faster: against whole ones, slices cost a small model some 2 to 4 % at 2,048 rows, and nothing that can be
told from noise (3 %) at 8,192 or in a model of SmolLM2's width.
"""


def rounded(rows: int, step: int) -> int:
    """The number of rows to compute for so many: the next multiple of the step."""
    return -(-rows // step) * step


def row_slices(rows: int, device: torch.device) -> tuple[slice, ...]:
    """Where products of so many rows, a multiple of `ANSWER_STEP`, are cut: on a CPU into slices, on other devices,
    whose kernels take any number of rows, not at all.
    """
    if device.type != "cpu":
        return (slice(0, rows),)
    slices, start = [], 0
    for size in SLICE_SIZES:
        while rows - start >= size:
            slices.append(slice(start, start + size))
            start += size
    return tuple(slices)


_LEVELS: Final = 127.0
_OFFSET: Final = 128
"""Added to activations of -127..127: oneDNN's fast path wants them unsigned."""

_LARGEST_BLOCK: Final = 64
"""Inputs that are mixed with one another. Larger blocks spread large inputs further, and take longer."""
_LEAST_SIZE: Final = 1e-3
"""Of a column of the weights, by their mean: below it inputs hardly matter, and are not balanced further."""

_reorder = torch.ops.mkldnn._reorder_linear_weight  # noqa: SLF001 - what compiled graphs call, public under no other name
_multiply = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001 - the same
_multiply_and_combine = torch.ops.mkldnn._linear_pointwise.binary  # noqa: SLF001 - the same


WeightAndBias = tuple[Tensor, Tensor | None]
"""Of a product: (outputs, inputs), and the bias (outputs,)."""


class Linear(Protocol):
    """(rows, inputs) -> (rows, outputs)."""

    def __call__(self, rows: Tensor) -> Tensor:
        """The product with the weights, plus the bias; of a gated pair see `pack_gated`."""


def pack_linear(weight: Tensor, bias: Tensor | None, precision: Precision) -> Linear:
    """The fastest layout for these weights (outputs, inputs) on their device.

    Raises:
        ValueError: int8 was asked for on a device other than a CPU.
    """
    if precision == "int8":
        if weight.device.type != "cpu":
            raise ValueError("precision int8 needs device cpu; use bfloat16 on a GPU")
        return Int8Linear(weight, bias)
    return OneDnnLinear(weight, bias) if _has_onednn(weight.device) else PlainLinear(weight, bias)


def pack_gated(gate: WeightAndBias, up: WeightAndBias, precision: Precision) -> Linear:
    """The first half of a gated MLP, silu(gate) * up, in the fastest layout for these weights.

    Raises:
        ValueError: as `pack_linear`.
    """
    if precision != "int8" and _has_onednn(gate[0].device):
        return OneDnnGated(gate, up)
    return PlainGated(pack_linear(*joined([gate, up]), precision))


def joined(parts: Sequence[WeightAndBias]) -> WeightAndBias:
    """Several products with the same input as one; a part without bias gets zeros where others have one."""
    weight = torch.cat([weight for weight, _ in parts])
    if all(bias is None for _, bias in parts):
        return weight, None
    return weight, torch.cat([weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in parts])


class PlainLinear:
    """torch's own linear layer: cuBLAS on a GPU, BLAS where oneDNN is missing."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight.contiguous()
        self._bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        """See `Linear`."""
        return functional.linear(rows, self._weight, self._bias)


class OneDnnLinear:
    """Weights in oneDNN's blocked layout; float32 or bfloat16 as they come."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = _reorder(weight.contiguous(), None)
        self._bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        """See `Linear`."""
        product: Tensor = _multiply(rows, self._weight, self._bias, "none", [], "")
        return product


class PlainGated:
    """Both products as one, then the rest in passes of its own.

    Args:
        gate_up: gives the gate's columns, then the others.
    """

    def __init__(self, gate_up: Linear) -> None:
        self._gate_up = gate_up

    def __call__(self, rows: Tensor) -> Tensor:
        """See `Linear`."""
        gate, up = self._gate_up(rows).chunk(2, dim=1)
        return functional.silu(gate).mul_(up)


class OneDnnGated:
    """Two products, each of which does its part of the rest before it rounds and writes. That spares two passes over a
    layer's widest matrices.
    """

    def __init__(self, gate: WeightAndBias, up: WeightAndBias) -> None:
        (gate_weight, self._gate_bias), (up_weight, self._up_bias) = gate, up
        self._gate, self._up = (_reorder(weight.contiguous(), None) for weight in (gate_weight, up_weight))

    def __call__(self, rows: Tensor) -> Tensor:
        """See `Linear`."""
        gate = _multiply(rows, self._gate, self._gate_bias, "swish", [], "")
        gated: Tensor = _multiply_and_combine(rows, gate, self._up, self._up_bias, "mul")
        return gated


def _has_onednn(device: torch.device) -> bool:
    return device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class Int8Linear:
    """int8 weights with a scale per output; activations are quantised on the fly with a scale per row.

    A scale per row makes a token's result independent of what else is in the batch, but few columns of decoders' hidden
    states are ten times as large as the rest, which would be left few of the 255 levels. So inputs are mixed first, in
    blocks: an orthogonal matrix spreads a large input over its block, and the weights, mixed with its inverse, give the
    same product (QuaRot, Ashkboos et al. 2024). Before that each input is multiplied by the root of its column's size
    in the weights, which these are divided by: the rounding of both shares the burden (SmoothQuant, Xiao et al. 2023,
    but from the weights alone, so that no example inputs are needed).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        plain = weight.float()
        balance = _balance(plain)  # (inputs,)
        block = min(plain.shape[1] & -plain.shape[1], _LARGEST_BLOCK)
        mixing = _hadamard(block)
        mixed = ((plain / balance).view(-1, block) @ (mixing / block)).view(plain.shape)
        scale = mixed.abs().amax(dim=1).clamp_min(1e-12) / _LEVELS  # (outputs,)
        quantised = (mixed / scale[:, None]).round_().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(quantised.contiguous(), None)
        self._scale = scale
        self._zero_points = torch.zeros(len(scale), dtype=torch.int32)
        self._bias = bias
        self._balance, self._block, self._mixing = balance, block, OneDnnLinear(mixing, None)

    def __call__(self, rows: Tensor) -> Tensor:
        """See `Linear`."""
        mixed = self._mixed(rows)
        largest = mixed.abs().amax(dim=1, keepdim=True).clamp_min_(1e-12)
        # The numbers are positive behind the offset: cutting off the rest beyond one half more is rounding.
        levels = mixed.mul_(_LEVELS / largest).add_(_OFFSET + 0.5).to(torch.uint8)
        scales = 1.0, _OFFSET, self._weight, self._scale, self._zero_points
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels, *scales, None, 1.0, 0, torch.float32, "none", [], ""
        )
        product.mul_(largest.div_(_LEVELS))
        return product if self._bias is None else product.add_(self._bias)

    def _mixed(self, rows: Tensor) -> Tensor:
        """What is multiplied with the mixed weights, (rows, inputs)."""
        return self._mixing((rows * self._balance).view(-1, self._block)).view(rows.shape)


def _balance(weight: Tensor) -> Tensor:
    """What each input is multiplied by, (inputs,): the root of its column's size, by that of all columns."""
    size = weight.square().mean(dim=0).sqrt_()
    return (size / size.mean().clamp_min(1e-12)).clamp_min_(_LEAST_SIZE).sqrt_()


def _hadamard(size: int) -> Tensor:
    """Sylvester's matrix of ones and minus ones, (size, size), for a power of two: `size` times its own inverse."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix
