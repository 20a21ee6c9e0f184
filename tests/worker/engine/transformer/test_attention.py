"""Tree attention against one plain softmax per query."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from worker.engine.transformer.attention import (
    Prefix,
    attend,
    attend_answers,
    attention_with_weight,
    written_out_attention,
)
from worker.engine.transformer.packing import Packed, pack

HEADS, KV_HEADS, DIM = 4, 2, 8
CPU = torch.device("cpu")


def batch() -> tuple[Packed, torch.Tensor, torch.Tensor, torch.Tensor, list[Prefix]]:
    """Requests that compute their prefix, take it from elsewhere, and do either with a part of it."""
    torch.manual_seed(0)
    segments = [
        SimpleNamespace(prefix_length=5, prefix_start=0, prefix_rows=5, suffix_lengths=np.array([3, 1])),
        SimpleNamespace(prefix_length=4, prefix_start=4, prefix_rows=0, suffix_lengths=np.array([2, 6, 2])),
        SimpleNamespace(prefix_length=1, prefix_start=0, prefix_rows=1, suffix_lengths=np.array([1])),
        SimpleNamespace(prefix_length=6, prefix_start=4, prefix_rows=2, suffix_lengths=np.array([2])),
    ]
    packed = pack(segments, CPU)
    query = torch.randn(packed.padded_rows, HEADS, DIM)
    key, value = torch.randn(2, packed.padded_rows, KV_HEADS, DIM)
    kept = torch.randn(4, KV_HEADS, DIM), torch.randn(4, KV_HEADS, DIM)
    both = torch.cat([kept[0], key[21:23]]), torch.cat([kept[1], value[21:23]])
    prefixes = [
        Prefix((key[0:5], value[0:5])),
        Prefix(kept),
        Prefix((key[19:20], value[19:20])),
        Prefix(both, before=kept),
    ]
    return packed, query, key, value, prefixes


def one_by_one(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """One query (heads, dim) over its keys and values (m, kv_heads, dim)."""
    keys = keys.repeat_interleave(HEADS // KV_HEADS, dim=1)
    values = values.repeat_interleave(HEADS // KV_HEADS, dim=1)
    shares = torch.softmax(torch.einsum("hd,mhd->hm", query, keys) * DIM**-0.5, dim=-1)
    return torch.einsum("hm,mhd->hd", shares, values)


def expected(packed, query, key, value, prefixes) -> torch.Tensor:
    """What every row should see, written out."""
    rows = torch.zeros_like(query)
    lengths = {0: [3, 1], 1: [2, 6, 2], 2: [1], 3: [2]}
    for request, (span, (whole, before)) in enumerate(zip(packed.spans, prefixes, strict=True)):
        prefix_key, prefix_value = whole
        known = 0 if before is None else len(before[0])
        for row in range(span.start, span.middle):
            seen = known + row - span.start + 1
            rows[row] = one_by_one(query[row], prefix_key[:seen], prefix_value[:seen])
        start = span.middle
        for length in lengths[request]:
            for row in range(start, start + length):
                keys = torch.cat([prefix_key, key[start : row + 1]])
                values = torch.cat([prefix_value, value[start : row + 1]])
                rows[row] = one_by_one(query[row], keys, values)
            start += length
    return rows


def test_every_row_sees_its_prefix_and_its_own_past():
    """Packed tree attention equals one softmax per row over exactly the rows it may see."""
    parts = batch()
    packed, query, key, value, prefixes = parts
    torch.testing.assert_close(attend(query, key, value, prefixes, packed), expected(*parts), atol=1e-5, rtol=1e-5)


def test_answers_alone_equal_their_rows():
    """Computed for the last tokens only, attention gives what it gives for all rows."""
    packed, query, key, value, prefixes = batch()
    answers = attend_answers(query[packed.answer_rows], key, value, prefixes, packed)
    everything = attend(query, key, value, prefixes, packed)
    torch.testing.assert_close(answers, everything[packed.answer_rows], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_fused_kernel_equals_the_formula(is_causal):
    """Outcome and log-sum-exp of the kernel are those of the written-out attention."""
    torch.manual_seed(1)
    query, key, value = torch.randn(3, 2, HEADS, 9, DIM)
    fused = attention_with_weight(query, key, value, is_causal=is_causal)
    plain = written_out_attention(query, key, value, is_causal=is_causal)
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)


def test_hidden_keys_count_for_nothing():
    """With the last keys hidden, kernel and formula give what they give without these keys."""
    torch.manual_seed(2)
    query, key, value = torch.randn(3, 2, HEADS, 9, DIM)
    hidden = torch.zeros(2, 1, 1, 9)
    hidden[..., 6:] = -torch.inf
    without = written_out_attention(query, key[:, :, :6], value[:, :, :6])
    for attention in (attention_with_weight, written_out_attention):
        torch.testing.assert_close(attention(query, key, value, hidden=hidden), without, atol=1e-5, rtol=1e-5)


def test_large_scores_do_not_overflow():
    """Scores far beyond the range of the exponential still give a proper average."""
    packed, query, key, value, prefixes = batch()
    attended = attend(query * 1e4, key, value, prefixes, packed)
    assert torch.isfinite(attended).all()
    assert attended.abs().max() <= max(value.abs().max(), prefixes[1].whole[1].abs().max()) + 1e-4
