"""Attention over trees: a prefix sees itself causally; a suffix sees its request's prefix and itself.

All suffix tokens of a request attend to its prefix at once, and all suffixes of the batch to their own keys at once.
The two are joined exactly: a query's attention over the prefix, whose total weight is the exponential of its
log-sum-exp, takes part in the suffix's softmax as one more key, with the prefix's outcome as its value.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from worker.engine.packing import Packed

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of a prefix, each (tokens, kv_heads, head_dim)."""

_CPU_KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001 - see attention_with_weight
_CUDA_KERNEL = torch.ops.aten._scaled_dot_product_flash_attention  # noqa: SLF001 - see attention_with_weight


def attend(query: Tensor, key: Tensor, value: Tensor, prefixes: Sequence[KeyValue], packed: Packed) -> Tensor:
    """Attention of every row of a batch.

    Args:
        query: (rows, heads, head_dim), rotated.
        key: (rows, kv_heads, head_dim), rotated.
        value: (rows, kv_heads, head_dim).
        prefixes: keys and values of every request's prefix, computed in this batch or kept from an earlier one.
        packed: where everything lies.

    Returns:
        (rows, heads, head_dim); rows that only fill up the batch are zero.
    """
    attended = torch.zeros_like(query)
    weight = torch.zeros(query.shape[:2], dtype=torch.float32, device=query.device)
    for span, (prefix_key, prefix_value) in zip(packed.spans, prefixes, strict=True):
        own, shared = slice(span.start, span.middle), slice(span.middle, span.end)
        if span.middle > span.start:
            attended[own], _ = _over(query[own], prefix_key, prefix_value, is_causal=True)
        attended[shared], weight[shared] = _over(query[shared], prefix_key, prefix_value, is_causal=False)
    grid = packed.suffix_grid
    later = torch.full(grid.shape[-1:] * 2, -torch.inf, dtype=query.dtype, device=query.device).triu_(1)
    own_query, own_key, own_value = _laid_out(query, grid), _laid_out(key, grid), _laid_out(value, grid)
    joined = _join_own(own_query, own_key, own_value, _laid_out(attended, grid), _laid_out(weight, grid), later)
    return attended.index_copy_(0, packed.suffix_rows, joined.flatten(0, 1).index_select(0, packed.suffix_cells))


def attend_answers(query: Tensor, key: Tensor, value: Tensor, prefixes: Sequence[KeyValue], packed: Packed) -> Tensor:
    """Attention of the suffixes' last tokens only, arguments as in `attend` but for query: (suffixes, heads, head_dim).

    Returns:
        (suffixes, heads, head_dim).
    """
    over_prefix = torch.empty_like(query)
    weight = torch.empty(query.shape[:2], dtype=torch.float32, device=query.device)
    for span, (prefix_key, prefix_value) in zip(packed.spans, prefixes, strict=True):
        rows = span.answers
        over_prefix[rows], weight[rows] = _over(query[rows], prefix_key, prefix_value, is_causal=False)
    grid = packed.suffix_grid
    beyond = grid == grid.roll(1, dims=1)  # a short suffix repeats its last token
    beyond[:, 0] = False
    mask = torch.zeros(grid.shape, dtype=query.dtype, device=query.device).masked_fill_(beyond, -torch.inf)
    own_key, own_value = _laid_out(key, grid), _laid_out(value, grid)
    joined = _join_own(query[:, None], own_key, own_value, over_prefix[:, None], weight[:, None], mask[:, None])
    return joined[:, 0]


def _laid_out(rows: Tensor, grid: Tensor) -> Tensor:
    """`rows[grid]`, by a function that copies whole rows at once."""
    return rows.index_select(0, grid.flatten()).view(*grid.shape, *rows.shape[1:])


def _join_own(query: Tensor, key: Tensor, value: Tensor, over_prefix: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Softmax over a suffix's own keys and its prefix's outcome together.

    Args:
        query: (suffixes, queries, heads, head_dim).
        key: (suffixes, keys, kv_heads, head_dim).
        value: like key.
        over_prefix: like query: attention over the prefix alone.
        weight: (suffixes, queries, heads): its log-sum-exp.
        mask: (queries, keys) or (suffixes, queries, keys), 0 or minus infinity.

    Returns:
        Like query.
    """
    suffixes, queries, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    grouped = _by_kv_head(query, kv_heads)  # (suffixes * kv_heads, group * queries, head_dim)
    keys = key.transpose(1, 2).reshape(suffixes * kv_heads, -1, head_dim)
    values = value.transpose(1, 2).reshape(suffixes * kv_heads, -1, head_dim)
    scores = torch.bmm(grouped, keys.transpose(1, 2)).mul_(head_dim**-0.5)
    by_group = scores.view(suffixes, kv_heads, heads // kv_heads, queries, -1)
    by_group += mask if mask.dim() == 2 else mask[:, None, None]
    # The log-sum-exp is in float32, and so is the softmax that it takes part in.
    with_prefix = torch.cat([scores, _by_kv_head(weight[..., None], kv_heads)], dim=-1)
    shares = torch.softmax(with_prefix, dim=-1).to(values.dtype)
    own = torch.bmm(shares[..., :-1], values)
    own.addcmul_(shares[..., -1:], _by_kv_head(over_prefix, kv_heads))
    return own.view(suffixes, heads, queries, head_dim).transpose(1, 2)


def _by_kv_head(rows: Tensor, kv_heads: int) -> Tensor:
    """(suffixes, queries, heads, d) as (suffixes * kv_heads, group * queries, d): queries that share keys together."""
    suffixes, queries, heads, width = rows.shape
    return rows.transpose(1, 2).reshape(suffixes * kv_heads, heads // kv_heads * queries, width)


def _over(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool) -> tuple[Tensor, Tensor]:
    """Attention of (n, heads, d) over (m, kv_heads, d): outcome (n, heads, d) and log-sum-exp (n, heads) in float32."""
    group = query.shape[1] // key.shape[1]
    q = query.transpose(0, 1)[None]
    k = key.repeat_interleave(group, dim=1).transpose(0, 1)[None]
    v = value.repeat_interleave(group, dim=1).transpose(0, 1)[None]
    outcome, weight = attention_with_weight(q, k, v, is_causal=is_causal)
    return outcome[0].transpose(0, 1), weight[0].transpose(0, 1)


def attention_with_weight(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention that also gives the logarithm of each softmax's denominator.

    The fused kernels behind `torch.nn.functional.scaled_dot_product_attention` know it; the public function keeps it to
    itself, so they are called by name, and written out for devices that have none.

    Args:
        query: (batch, heads, n, d).
        key: (batch, heads, m, d).
        value: like key.
        is_causal: whether query i sees keys 0..i only.

    Returns:
        (batch, heads, n, d) and (batch, heads, n).
    """
    if query.device.type == "cpu":
        fused = _CPU_KERNEL(query, key, value, 0.0, is_causal)
        return fused[0], fused[1]
    if query.device.type == "cuda" and query.dtype in (torch.bfloat16, torch.float16):
        fused = _CUDA_KERNEL(query, key, value, 0.0, is_causal)
        return fused[0], fused[1][..., : query.shape[2]]
    return written_out_attention(query, key, value, is_causal=is_causal)


def written_out_attention(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool) -> tuple[Tensor, Tensor]:
    """`attention_with_weight` in plain operations, for any device."""
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu_(1)
        scores = scores.masked_fill(later, -torch.inf)
    scores = scores.float()
    return functional.softmax(scores, dim=-1).to(value.dtype) @ value, torch.logsumexp(scores, dim=-1)
