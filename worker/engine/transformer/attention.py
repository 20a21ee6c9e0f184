"""Attention over trees: a prefix sees itself causally; a suffix sees its request's prefix and itself.

All suffix tokens of a request attend to its prefix at once, and all suffixes of the batch to their own keys at once.
The two are joined exactly: a softmax over two sets of keys is the mean of the softmaxes over each, weighted by the
exponentials of their log-sum-exps, which the fused kernels return.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from worker.engine.transformer.packing import Packed

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of some tokens, each (tokens, kv_heads, head_dim)."""


class Prefix(NamedTuple):
    """A request's prefix in one layer."""

    whole: KeyValue
    """What its suffixes attend to."""
    before: KeyValue | None = None
    """Of these, what stands before the rows of the prefix that are computed in this batch; None where nothing does."""


_CPU_KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001 - see attention_with_weight
_CUDA_KERNEL = torch.ops.aten._scaled_dot_product_flash_attention  # noqa: SLF001 - see attention_with_weight


def attend(query: Tensor, key: Tensor, value: Tensor, prefixes: Sequence[Prefix], packed: Packed) -> Tensor:
    """Attention of every row of a batch.

    Args:
        query: (rows, heads, head_dim), rotated.
        key: (rows, kv_heads, head_dim), rotated.
        value: (rows, kv_heads, head_dim).
        prefixes: every request's, computed in this batch or kept from an earlier one.
        packed: where everything lies.

    Returns:
        (rows, heads, head_dim); rows that only fill up the batch are zero.
    """
    attended = torch.zeros_like(query)
    weight = torch.zeros(query.shape[:2], dtype=torch.float32, device=query.device)
    for span, prefix in zip(packed.spans, prefixes, strict=True):
        own, shared = slice(span.start, span.middle), slice(span.middle, span.end)
        if span.middle > span.start:
            attended[own] = _prefix_over_itself(query[own], (key[own], value[own]), prefix.before)
        if span.end > span.middle:
            attended[shared], weight[shared] = _over(query[shared], *prefix.whole, is_causal=False)
    if not packed.suffixes:
        return attended
    # A short suffix repeats its last token up to the longest's length; causality hides the repetitions from the others.
    grid, rows = packed.suffix_grid, packed.suffix_rows
    over_own, own_weight = attention_with_weight(
        *(_laid_out(part, grid, query.shape[1]) for part in (query, key, value)), is_causal=True
    )
    over_own = over_own.transpose(1, 2).flatten(0, 1).index_select(0, packed.suffix_cells)
    own_weight = own_weight.transpose(1, 2).flatten(0, 1).index_select(0, packed.suffix_cells)
    joined = _joined(over_own, own_weight, attended.index_select(0, rows), weight.index_select(0, rows))
    return attended.index_copy_(0, rows, joined)


def attend_answers(query: Tensor, key: Tensor, value: Tensor, prefixes: Sequence[Prefix], packed: Packed) -> Tensor:
    """Attention of the suffixes' last tokens only, arguments as in `attend` but for query: (suffixes, heads, head_dim).

    Returns:
        (suffixes, heads, head_dim).
    """
    over_prefix = torch.empty_like(query)
    weight = torch.empty(query.shape[:2], dtype=torch.float32, device=query.device)
    for span, prefix in zip(packed.spans, prefixes, strict=True):
        rows = span.answers
        over_prefix[rows], weight[rows] = _over(query[rows], *prefix.whole, is_causal=False)
    grid = packed.suffix_grid
    beyond = grid == grid.roll(1, dims=1)  # a short suffix repeats its last token
    beyond[:, 0] = False
    hidden = torch.zeros(grid.shape, dtype=query.dtype, device=query.device).masked_fill_(beyond, -torch.inf)
    own_key, own_value = (_laid_out(part, grid, query.shape[1]) for part in (key, value))
    over_own, own_weight = attention_with_weight(query[:, :, None], own_key, own_value, hidden=hidden[:, None, None])
    return _joined(over_own[:, :, 0], own_weight[..., 0], over_prefix, weight)


def _prefix_over_itself(query: Tensor, own: KeyValue, before: KeyValue | None) -> Tensor:
    """Attention of a prefix's rows (n, heads, head_dim) over what stands before them and, causally, themselves."""
    over_own, own_weight = _over(query, *own, is_causal=True)
    if before is None:
        return over_own
    return _joined(over_own, own_weight, *_over(query, *before, is_causal=False))


def _laid_out(rows: Tensor, grid: Tensor, heads: int) -> Tensor:
    """Rows (rows, kv_heads, head_dim) as (suffixes, heads, longest, head_dim)."""
    laid_out = rows.index_select(0, grid.flatten()).view(*grid.shape, *rows.shape[1:])
    return _for_heads(laid_out.transpose(1, 2), heads)


def _for_heads(kv: Tensor, heads: int) -> Tensor:
    """(batch, kv_heads, n, head_dim) with each repeated for the query heads that share it."""
    group = heads // kv.shape[1]
    return kv if group == 1 else kv.repeat_interleave(group, dim=1)


def _joined(over_own: Tensor, own_weight: Tensor, over_prefix: Tensor, prefix_weight: Tensor) -> Tensor:
    """Attention over both sets of keys from that over each, (n, heads, head_dim), and their log-sum-exps (n, heads)."""
    share = torch.sigmoid(own_weight - prefix_weight)[..., None].to(over_own.dtype)
    return torch.lerp(over_prefix, over_own, share)


def _over(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool) -> tuple[Tensor, Tensor]:
    """Attention of (n, heads, d) over (m, kv_heads, d): outcome (n, heads, d) and log-sum-exp (n, heads) in float32."""
    heads = query.shape[1]
    k, v = (_for_heads(part.transpose(0, 1)[None], heads) for part in (key, value))
    outcome, weight = attention_with_weight(query.transpose(0, 1)[None], k, v, is_causal=is_causal)
    return outcome[0].transpose(0, 1), weight[0].transpose(0, 1)


def attention_with_weight(
    query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool = False, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention that also gives the logarithm of each softmax's denominator.

    The fused kernels behind `torch.nn.functional.scaled_dot_product_attention` compute it, but the public function does
    not return it. So they are called by name; where there is no kernel for the case, plain operations are used.

    Args:
        query: (batch, heads, n, d).
        key: (batch, heads, m, d).
        value: like key.
        is_causal: whether query i sees keys 0..i only.
        hidden: (batch, 1, 1 or n, m), minus infinity for hidden keys, else 0.

    Returns:
        (batch, heads, n, d) and, in float32, (batch, heads, n).
    """
    if query.device.type == "cpu":
        fused = _CPU_KERNEL(query, key, value, 0.0, is_causal, attn_mask=hidden)
        return fused[0], fused[1]
    if query.device.type == "cuda" and query.dtype in (torch.bfloat16, torch.float16) and hidden is None:
        fused = _CUDA_KERNEL(query, key, value, 0.0, is_causal)
        return fused[0], fused[1][..., : query.shape[2]]
    return written_out_attention(query, key, value, is_causal=is_causal, hidden=hidden)


def written_out_attention(
    query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool = False, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`attention_with_weight` in plain operations, for any device."""
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu_(1)
        scores = scores.masked_fill(later, -torch.inf)
    if hidden is not None:
        scores = scores + hidden
    scores = scores.float()
    return functional.softmax(scores, dim=-1).to(value.dtype) @ value, torch.logsumexp(scores, dim=-1)
