"""Attention of many sequences against one softmax per query, in groups and in one call."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import varlen
from torch.nn.attention.varlen import varlen_attn

from worker.engine.transformer import sequence_attention
from worker.engine.transformer.attention_kernels import attention_with_weight, gpu_kernel, written_out_attention
from worker.engine.transformer.sequence_attention import UNSEEN, SequenceAttention, Sequences

HEADS, KV_HEADS, DIM = 4, 2, 8
CPU = torch.device("cpu")
KEY_ROWS = 40
SHIPPED = {limit: getattr(sequence_attention, limit) for limit in ("MOST_PADDING", "LONG", "MOST_ROWS", "LANES")}


@pytest.fixture(autouse=True, scope="module")
def small_calls():
    """Limits that sequences of a few rows reach."""
    with pytest.MonkeyPatch.context() as patch:
        for limit, value in zip(SHIPPED, (12, 8, 30, 4), strict=True):
            patch.setattr(sequence_attention, limit, value)
        yield


@st.composite
def attentions(draw):
    """Sequences with gaps between them, in any order, some without rows; keys may be shared, or be the queries' own."""
    count, is_causal = draw(st.integers(0, 8)), draw(st.booleans())
    lengths = np.array(draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)), np.int64)
    gaps = np.array(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)), np.int64)
    order = np.array(draw(st.permutations(range(count))), np.int64)
    queries = Sequences((np.cumsum(lengths + gaps) - lengths)[order], lengths[order])
    rows = int((lengths + gaps).sum()) + 1
    if draw(st.booleans()):
        return SequenceAttention.of(queries, queries, CPU, is_causal=is_causal), rows, rows
    key_lengths = queries.lengths
    if not is_causal:
        key_lengths = np.array(draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)), np.int64)
    key_starts = [draw(st.integers(0, KEY_ROWS - length)) for length in key_lengths.tolist()]
    keys = Sequences(np.array(key_starts, np.int64), key_lengths)
    return SequenceAttention.of(queries, keys, CPU, is_causal=is_causal), rows, KEY_ROWS


def tensors(rows: int, key_rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values."""
    torch.manual_seed(rows)
    key, value = torch.randn(2, key_rows, KV_HEADS, DIM)
    return torch.randn(rows, HEADS, DIM), key, value


def expected(attention: SequenceAttention, query, key, value) -> tuple[torch.Tensor, torch.Tensor]:
    """Query by query, head by head."""
    outcome, weight = torch.zeros_like(query), torch.full(query.shape[:2], UNSEEN)
    queries, keys = attention.queries, attention.keys
    for index, (start, length) in enumerate(zip(*queries, strict=True)):
        key_start, key_length = keys.starts[index], keys.lengths[index]
        for place in range(length):
            seen = slice(key_start, key_start + (place + 1 if attention.is_causal else key_length))
            for head in range(HEADS):
                shared = head // (HEADS // KV_HEADS)
                scores = key[seen, shared] @ query[start + place, head] / DIM**0.5
                outcome[start + place, head] = torch.softmax(scores, 0) @ value[seen, shared]
                weight[start + place, head] = torch.logsumexp(scores, 0)
    return outcome, weight


def one_by_one(query, key, value, query_bounds, key_bounds, longest_query, longest_key, is_causal):
    """A kernel for variable lengths, in plain operations: sequence by sequence."""
    assert query_bounds.dtype == key_bounds.dtype == torch.int32
    assert longest_query == query_bounds.diff().max()
    assert longest_key == key_bounds.diff().max()
    outcomes, weights = [], []
    for index in range(len(query_bounds) - 1):
        rows, seen = (slice(bounds[index], bounds[index + 1]) for bounds in (query_bounds, key_bounds))
        parts = query[rows], key[seen], value[seen]
        outcome, weight = written_out_attention(*(part.transpose(0, 1)[None] for part in parts), is_causal=is_causal)
        outcomes.append(outcome[0].transpose(0, 1))
        weights.append(weight[0])
    return torch.cat(outcomes), torch.cat(weights, dim=1)


@settings(max_examples=80)
@given(attentions())
def test_groups_of_similar_lengths_give_each_query_its_softmax(drawn):
    """However lengths mix, every query sees its keys and no others, and rows of no sequence see nothing."""
    attention, *rows = drawn
    parts = tensors(*rows)
    torch.testing.assert_close(attention(*parts), expected(attention, *parts), atol=1e-5, rtol=1e-5)


@settings(max_examples=80)
@given(attentions())
def test_one_call_for_all_gives_the_same(drawn):
    """Handed to a kernel for variable lengths in one piece, the sequences give what they give in groups."""
    attention, *rows = drawn
    parts = tensors(*rows)
    packed = attention.packed(*parts, kernel=one_by_one)
    torch.testing.assert_close(packed, attention.grouped(*parts), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_gpu_kernel_takes_what_it_is_handed(is_causal, monkeypatch):
    """The arguments are those of torch's kernel for GPUs, and its results have the shapes; no GPU is needed."""
    asked = {}

    def watched(*tensors, **how):
        asked.update(how)
        return varlen_attn(*tensors, **how)

    monkeypatch.setattr(varlen, "varlen_attn", watched)
    with FakeTensorMode():
        query = torch.empty(7, HEADS, DIM, dtype=torch.bfloat16, device="cuda")
        key = torch.empty(9, KV_HEADS, DIM, dtype=torch.bfloat16, device="cuda")
        bounds = torch.empty(3, dtype=torch.int32, device="cuda")
        outcome, weights = gpu_kernel(query, key, key, bounds, bounds, 4, 5, is_causal)
    assert (outcome.shape, outcome.dtype) == (query.shape, torch.bfloat16)
    assert (weights.shape, weights.dtype) == ((HEADS, 7), torch.float32)
    # Up to a query's own place, and no further back than everything: torch's word for causal.
    assert asked["window_size"] == ((-1, 0) if is_causal else (-1, -1))
    assert asked["enable_gqa"]


def calls(sequences: Sequences, keys: Sequences) -> list[np.ndarray]:
    """Which sequences make a call together."""
    groups = list(SequenceAttention(sequences, keys, CPU)._similar())
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(sequences.lengths)))
    return groups


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=60))
def test_calls_are_full_and_bounded(lengths):
    """No call has more pairs that only fill it up than another is worth, none is too large, and long sequences have
    one each.
    """
    queries, keys = (Sequences(np.zeros(len(lengths), np.int64), np.array(part)) for part in zip(*lengths, strict=True))
    for chosen in calls(queries, keys):
        longest, most_keys = queries.lengths[chosen].max(), keys.lengths[chosen].max()
        filled = queries.lengths[chosen] @ keys.lengths[chosen]
        assert len(chosen) * longest * most_keys - filled <= sequence_attention.MOST_PADDING
        assert len(chosen) == 1 or len(chosen) * (longest + most_keys) <= sequence_attention.MOST_ROWS
        assert len(chosen) == 1 or max(longest, most_keys) < sequence_attention.LONG


def test_a_page_is_one_call_and_many_are_few(monkeypatch):
    """A page's suffixes are not taken apart; those of many pages are, where that saves more than a call costs."""
    for limit, value in SHIPPED.items():
        monkeypatch.setattr(sequence_attention, limit, value)
    page = np.tile(np.arange(25, 37), 2)
    for lengths, fewest, most in ((page, 1, 1), (np.tile(page, 16), 2, 6)):
        sequences = Sequences(np.zeros_like(lengths), lengths)
        assert fewest <= len(calls(sequences, sequences)) <= most


@settings(max_examples=60)
@given(attentions())
def test_calls_see_whole_lanes_of_keys(drawn):
    """Every call's keys are padded to a multiple of what the kernel takes at once, also those of a single sequence."""
    attention, *rows = drawn
    query, key, value = tensors(*rows)
    lengths = []

    def watched(query, key, value, **how):
        lengths.append(key.shape[2])
        return attention_with_weight(query, key, value, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence_attention, "attention_with_weight", watched)
        attention(query, key, value)
    assert bool(lengths) == bool(len(attention.queries.lengths))
    assert not any(length % sequence_attention.LANES for length in lengths)


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_fused_kernel_equals_the_formula(is_causal):
    """Outcome and log-sum-exp of the kernel are those of the written-out attention."""
    torch.manual_seed(1)
    query = torch.randn(2, HEADS, 9, DIM)
    key, value = torch.randn(2, 2, KV_HEADS, 9, DIM)
    fused = attention_with_weight(query, key, value, is_causal=is_causal)
    plain = written_out_attention(query, key, value, is_causal=is_causal)
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)


def test_hidden_keys_count_for_nothing():
    """With the last keys hidden, kernel and formula give what they give without these keys."""
    torch.manual_seed(2)
    query = torch.randn(2, HEADS, 9, DIM)
    key, value = torch.randn(2, 2, KV_HEADS, 9, DIM)
    hidden = torch.zeros(2, 1, 1, 9)
    hidden[..., 6:] = -torch.inf
    without = written_out_attention(query, key[:, :, :6], value[:, :, :6])
    for attention in (attention_with_weight, written_out_attention):
        torch.testing.assert_close(attention(query, key, value, hidden=hidden), without, atol=1e-5, rtol=1e-5)
