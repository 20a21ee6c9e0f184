"""The decoder's mathematics over packed rows: what transformers' Llama, Mistral, Qwen2 and Qwen3 layers compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from worker.engine.transformer.linear import ANSWER_STEP, rounded, row_slices
from worker.engine.transformer.packing import Packed
from worker.engine.transformer.tree_attention import KeyValue
from worker.engine.transformer.weights import ExitLayer, LayerWeights, Shape

_NORM_BLOCK: Final = 64

Prefixes = Callable[[Tensor, Tensor], KeyValue]
"""From a layer's keys and values (rows, kv_heads, head_dim) to those of all requests' prefixes."""


def run_layer(
    hidden: Tensor, layer: LayerWeights, shape: Shape, rotation: Tensor, prefixes: Prefixes, packed: Packed
) -> Tensor:
    """One decoder layer over all rows.

    Args:
        hidden: (rows, hidden).
        layer: its weights.
        shape: the decoder in numbers.
        rotation: (rows, 1, head_dim / 2) complex.
        prefixes: gives every request's prefix from this layer's keys and values.
        packed: where everything lies.

    Returns:
        (rows, hidden).
    """
    query, key, value = _query_key_value(hidden, layer, shape, rotation, packed)
    attended = packed.attention(query, (key, value), prefixes(key, value)).flatten(1)
    return _behind_attention(attended, hidden, layer, shape, packed.slices)


def run_exit_layer(
    hidden: Tensor, layer: ExitLayer, shape: Shape, rotation: Tensor, prefixes: Prefixes, packed: Packed
) -> Tensor:
    """The layer before a head, for the answers' rows alone: the others give keys and values, a fraction of its work.

    Who leaves at the head has thereby been spared the rest. Who stays has the layer run in full with the next stage.

    Returns:
        (suffixes, hidden).
    """
    rest, rows = layer.rest, packed.answer_rows
    key, value = exit_keys(hidden, layer, shape, rotation, packed)
    answers = _padded(hidden.index_select(0, rows))
    slices = row_slices(len(answers), hidden.device)
    query = _whole([layer.query(_normed(answers[part], shape)) for part in slices])[: len(rows)]
    query = _rotated(query, shape, layer.query_norm, rotation[rows])
    attended = packed.answers_attention(query, (key, value), prefixes(key, value))
    return _behind_attention(_padded(attended.flatten(1)), answers, rest, shape, slices)[: len(rows)]


def exit_keys(
    hidden: Tensor, layer: ExitLayer, shape: Shape, rotation: Tensor, packed: Packed
) -> tuple[Tensor, Tensor]:
    """Rotated keys, and values, of all rows, each (rows, kv_heads, head_dim): of the layer before a head."""
    key, value = _whole([layer.key_value(_normed(hidden[part], shape)) for part in packed.slices]).chunk(2, dim=1)
    return _rotated(key, shape, layer.key_norm, rotation), _heads(value, shape)


def _query_key_value(
    hidden: Tensor, layer: LayerWeights, shape: Shape, rotation: Tensor, packed: Packed
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries (rows, heads, head_dim), and rotated keys and values (rows, kv_heads, head_dim)."""
    fused = _whole([layer.qkv(_normed(hidden[rows], shape)) for rows in packed.slices])
    query_key, value = torch.split(fused, [shape.query_width + shape.kv_width, shape.kv_width], dim=1)
    rotated = _rotated(query_key, shape, layer.head_norm, rotation)
    query, key = torch.split(rotated, [shape.heads, shape.kv_heads], dim=1)
    return query, key, _heads(value, shape)


def _whole(slices: Sequence[Tensor]) -> Tensor:
    """Slices of rows, joined again."""
    return slices[0] if len(slices) == 1 else torch.cat(list(slices))


def _padded(rows: Tensor) -> Tensor:
    """The rows and some of zeros, so that their number is one of few."""
    return functional.pad(rows, (0, 0, 0, rounded(len(rows), ANSWER_STEP) - len(rows)))


def _behind_attention(
    attended: Tensor, hidden: Tensor, layer: LayerWeights, shape: Shape, slices: Sequence[slice]
) -> Tensor:
    """The rest of a layer, (rows, hidden), from what its rows attend to and what they were before it."""
    deeper = torch.empty_like(hidden)
    for rows in slices:
        inner = layer.output(attended[rows]).add_(hidden[rows])
        torch.add(layer.down(layer.gated(_normed(inner, shape))), inner, out=deeper[rows])
    return deeper


def _normed(rows: Tensor, shape: Shape) -> Tensor:
    """Rows at root mean square 1: RMSNorm less its weight, which is folded into the product that follows."""
    squares = _sums_of_squares(rows)
    scale: Tensor = squares.div_(rows.shape[-1]).add_(shape.epsilon).rsqrt_()
    return rows * scale.to(rows.dtype)


def _sums_of_squares(rows: Tensor) -> Tensor:  # (..., 1) float32
    """Of rows (..., width). On a CPU a norm in float32 of other rows would copy them first. So norms are left in their
    format, but taken of blocks, whose rounding errors cancel for the most part.
    """
    if rows.device.type == "cpu" and rows.dtype != torch.float32:
        blocks = rows.view(*rows.shape[:-1], -1, min(rows.shape[-1] & -rows.shape[-1], _NORM_BLOCK))
        norms: Tensor = torch.linalg.vector_norm(blocks, dim=-1)
        return norms.float().square_().sum(dim=-1, keepdim=True)
    squares: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=torch.float32).square_()
    return squares


def _heads(rows: Tensor, shape: Shape) -> Tensor:
    """(rows, heads * head_dim) as (rows, heads, head_dim)."""
    return rows.view(len(rows), -1, shape.head_dim)


def _rotated(rows: Tensor, shape: Shape, norm: Tensor | None, rotation: Tensor) -> Tensor:
    """Heads of queries or keys (rows, heads, head_dim), normed where the family does that, with the rotary embedding:
    every pair of neighbouring columns is a complex number, turned by its position's angle. Without a norm the rows are
    overwritten, which takes two thirds of the time.

    Args:
        rows: (rows, heads * head_dim).
        shape: the decoder in numbers.
        norm: (heads, head_dim) weights of the norm.
        rotation: (rows, 1, head_dim / 2) complex.
    """
    heads = _heads(rows, shape)
    if norm is not None:
        heads = _normed(heads, shape) * norm
    wide = heads.float()  # of float32 the same memory
    torch.view_as_complex(wide.view(*heads.shape[:-1], -1, 2)).mul_(rotation)
    return wide if wide.dtype == heads.dtype else heads.copy_(wide)
