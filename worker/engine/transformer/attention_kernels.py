"""Attention kernels: of equal lengths for CPUs, of variable lengths for GPUs, and in plain operations for any device.

All give, beside the outcome, the logarithm of each softmax's denominator, and take fewer heads of keys and values than
of queries: neighbouring query heads share one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int, bool], tuple[Tensor, Tensor]]
"""From queries (rows, heads, head_dim), keys and values (key rows, kv_heads, head_dim), int32 bounds of the sequences
of either (sequences + 1,), their longest lengths, and whether it is causal, to outcomes like the queries, and
log-sum-exps (heads, rows).
"""

LANES: Final = 16
"""Keys that the fused kernel of a CPU takes at once, on machines with AVX-512. What a multiple of them leaves over it
takes one by one: 15 keys more than 64 take longer than 32 more do.
"""

_fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001 - see attention_with_weight


def attention_with_weight(
    query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool = False, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention that also gives the logarithm of each softmax's denominator.

    The fused kernel behind `torch.nn.functional.scaled_dot_product_attention` on a CPU computes it, but the public
    function does not return it. So it is called by name; on other devices plain operations are used.

    In bfloat16 two batched products with the softmax between them round the scores and take half as long again and
    more, though the products alone are faster.

    Args:
        query: (batch, heads, n, d).
        key: (batch, kv_heads, m, d).
        value: like key.
        is_causal: whether query i sees keys 0..i only.
        hidden: (batch, 1, 1 or n, m), minus infinity for hidden keys, else 0.

    Returns:
        (batch, heads, n, d) and, in float32, (batch, heads, n).
    """
    if query.device.type == "cpu":
        outcome, weight = _fused(query, key, value, 0.0, is_causal, attn_mask=hidden)
        return outcome, weight
    return written_out_attention(query, key, value, is_causal=is_causal, hidden=hidden)


def written_out_attention(
    query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool = False, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`attention_with_weight` in plain operations, for any device."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu_(1)
        scores = scores.masked_fill(later, -torch.inf)
    if hidden is not None:
        scores = scores + hidden
    scores = scores.float()
    return functional.softmax(scores, dim=-1).to(value.dtype) @ value, torch.logsumexp(scores, dim=-1)


def gpu_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_bounds: Tensor,
    key_bounds: Tensor,
    longest_query: int,
    longest_key: int,
    is_causal: bool,
) -> tuple[Tensor, Tensor]:
    """The kernel of torch for variable lengths, which there is for GPUs only; a `Kernel`."""
    from torch.nn.attention.varlen import AuxRequest, varlen_attn  # noqa: PLC0415 - half a second, and no CPU needs it

    outcome, weights = varlen_attn(
        query,
        key,
        value,
        query_bounds,
        key_bounds,
        longest_query,
        longest_key,
        return_aux=AuxRequest(lse=True),
        window_size=(-1, 0) if is_causal else (-1, -1),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return outcome, weights
