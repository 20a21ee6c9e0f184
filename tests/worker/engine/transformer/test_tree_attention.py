"""Tree attention against one plain softmax per query."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from worker.engine.transformer.packing import Packed, pack

HEADS, KV_HEADS, DIM = 4, 2, 8
CPU = torch.device("cpu")


def batch() -> tuple[Packed, torch.Tensor, tuple, tuple]:
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
    kept = torch.randn(2, 4, KV_HEADS, DIM)
    prefixes = tuple(
        torch.cat([rows[0:5], known, rows[19:20], known, rows[21:23]])
        for rows, known in zip((key, value), kept, strict=True)
    )
    return packed, query, (key, value), prefixes


def one_by_one(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """One query (heads, dim) over its keys and values (m, kv_heads, dim)."""
    keys = keys.repeat_interleave(HEADS // KV_HEADS, dim=1)
    values = values.repeat_interleave(HEADS // KV_HEADS, dim=1)
    shares = torch.softmax(torch.einsum("hd,mhd->hm", query, keys) * DIM**-0.5, dim=-1)
    return torch.einsum("hm,mhd->hd", shares, values)


def expected(packed, query, own, prefixes) -> torch.Tensor:
    """What every row should see, written out."""
    rows = torch.zeros_like(query)
    key, value = own
    lengths = {0: [3, 1], 1: [2, 6, 2], 2: [1], 3: [2]}
    starts, known = [0, 5, 9, 10, 16], [0, 4, 0, 4]
    for request, span in enumerate(packed.spans):
        prefix_key, prefix_value = (part[starts[request] : starts[request + 1]] for part in prefixes)
        for row in range(span.start, span.middle):
            seen = known[request] + row - span.start + 1
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
    packed, query, own, prefixes = parts = batch()
    torch.testing.assert_close(packed.attention(query, own, prefixes), expected(*parts), atol=1e-5, rtol=1e-5)


def test_answers_alone_equal_their_rows():
    """Computed for the last tokens only, attention gives what it gives for all rows."""
    packed, query, own, prefixes = batch()
    answers = packed.answers_attention(query[packed.answer_rows], own, prefixes)
    everything = packed.attention(query, own, prefixes)
    torch.testing.assert_close(answers, everything[packed.answer_rows], atol=1e-5, rtol=1e-5)


def test_large_scores_do_not_overflow():
    """Scores far beyond the range of the exponential still give a proper average."""
    packed, query, own, prefixes = batch()
    attended = packed.attention(query * 1e4, own, prefixes)
    assert torch.isfinite(attended).all()
    assert attended.abs().max() <= max(own[1].abs().max(), prefixes[1].abs().max()) + 1e-4
