"""Attention of many sequences against one softmax per query, in groups and in one call."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from worker.engine.transformer.sequence_attention import (
    LONG,
    MOST_PADDING,
    UNSEEN,
    SequenceAttention,
    Sequences,
    attention_with_weight,
    gpu_kernel,
    written_out_attention,
)

HEADS, KV_HEADS, DIM = 4, 2, 8
CPU = torch.device("cpu")
KEY_ROWS = 40


@st.composite
def attentions(draw):
    """Sequences with gaps between them, in any order; keys may be shared."""
    count, is_causal = draw(st.integers(0, 8)), draw(st.booleans())
    lengths = draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    gaps = draw(st.lists(st.integers(0, 2), min_size=count + 1, max_size=count + 1))
    starts = np.cumsum([0, *lengths[:-1]] if count else []) + np.cumsum(gaps[:count])
    order = draw(st.permutations(range(count)))
    queries = Sequences(
        np.array([starts[index] for index in order], np.int64), np.array([lengths[index] for index in order], np.int64)
    )
    key_lengths = queries.lengths
    if not is_causal:
        key_lengths = np.array(draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)), np.int64)
    key_starts = [draw(st.integers(0, KEY_ROWS - length)) for length in key_lengths.tolist()]
    keys = Sequences(np.array(key_starts, np.int64), key_lengths)
    rows = sum(lengths) + sum(gaps) + 1
    return SequenceAttention(queries, keys, CPU, is_causal), rows


def tensors(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values."""
    torch.manual_seed(rows)
    key, value = torch.randn(2, KEY_ROWS, KV_HEADS, DIM)
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
        group = query.shape[1] // key.shape[1]
        parts = (query[rows], key[seen].repeat_interleave(group, 1), value[seen].repeat_interleave(group, 1))
        outcome, weight = written_out_attention(*(part.transpose(0, 1)[None] for part in parts), is_causal=is_causal)
        outcomes.append(outcome[0].transpose(0, 1))
        weights.append(weight[0])
    return torch.cat(outcomes), torch.cat(weights, dim=1)


@settings(max_examples=80)
@given(attentions())
def test_groups_of_similar_lengths_give_each_query_its_softmax(drawn):
    """However lengths mix, every query sees its keys and no others, and rows of no sequence see nothing."""
    attention, rows = drawn
    parts = tensors(rows)
    torch.testing.assert_close(attention(*parts), expected(attention, *parts), atol=1e-5, rtol=1e-5)


@settings(max_examples=80)
@given(attentions())
def test_one_call_for_all_gives_the_same(drawn):
    """Handed to a kernel for variable lengths in one piece, the sequences give what they give in groups."""
    attention, rows = drawn
    parts = tensors(rows)
    packed = attention.packed(*parts, kernel=one_by_one)
    torch.testing.assert_close(packed, attention.grouped(*parts), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_gpu_kernel_takes_what_it_is_handed(is_causal):
    """On a GPU, which this computes the shapes of without having one, torch's kernel accepts the call."""
    with FakeTensorMode():
        query = torch.empty(7, HEADS, DIM, dtype=torch.bfloat16, device="cuda")
        key = torch.empty(9, KV_HEADS, DIM, dtype=torch.bfloat16, device="cuda")
        bounds = torch.empty(3, dtype=torch.int32, device="cuda")
        outcome, weights = gpu_kernel(query, key, key, bounds, bounds, 4, 5, is_causal)
    assert (outcome.shape, outcome.dtype) == (query.shape, torch.bfloat16)
    assert (weights.shape, weights.dtype) == ((HEADS, 7), torch.float32)


def calls(sequences: Sequences, keys: Sequences) -> list[np.ndarray]:
    """Which sequences make a call together."""
    groups = list(SequenceAttention(sequences, keys, CPU)._similar())
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(sequences.lengths)))
    return groups


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=60))
def test_little_is_padded(lengths):
    """No call has more rows that only fill it up than another call is worth, and long sequences have one each."""
    queries, keys = (Sequences(np.zeros(len(lengths), np.int64), np.array(part)) for part in zip(*lengths, strict=True))
    for chosen in calls(queries, keys):
        padded = len(chosen) * (queries.lengths[chosen].max() + keys.lengths[chosen].max())
        assert padded - queries.lengths[chosen].sum() - keys.lengths[chosen].sum() <= MOST_PADDING
        assert len(chosen) == 1 or queries.lengths[chosen].max() < LONG


def test_alike_sequences_make_one_call_and_very_different_ones_several():
    """A page's suffixes are not taken apart; those of many pages are, where that saves more than a call costs."""
    page = np.tile(np.arange(25, 37), 2)
    for lengths, expected in ((page, 1), (np.tile(page, 16), range(2, 6))):
        sequences = Sequences(np.zeros_like(lengths), lengths)
        assert len(calls(sequences, sequences)) in ([expected] if isinstance(expected, int) else expected)


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
