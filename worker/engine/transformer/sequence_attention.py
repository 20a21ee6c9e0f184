"""Attention of many sequences at once, whatever their lengths: each sequence of queries sees one sequence of keys.

In bfloat16 on a GPU all of them are one call of the kernel for variable lengths. The fused kernel of a CPU wants equal
lengths: sequences of similar lengths are padded to the longest of them and make one call together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Ints = NDArray[np.int64]

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int, bool], tuple[Tensor, Tensor]]
"""From queries (rows, heads, head_dim), keys and values (key rows, kv_heads, head_dim), int32 bounds of the sequences
of either (sequences + 1,), their longest lengths, and whether it is causal, to outcomes like the queries, and
log-sum-exps (heads, rows).
"""

MOST_PADDING: Final = 10_000
"""Pairs of a query and a key that only fill up a call. More of them take longer than another call would."""
LONG: Final = 256
"""So many queries or keys make a call of their own: that costs less than laying them out beside others."""
MOST_ROWS: Final = 8_192
"""Rows of queries and keys in one call, which bounds the memory that laying them out takes."""
UNSEEN: Final = torch.finfo(torch.float32).min
"""Log-sum-exp over no keys at all; finite, so that differences are numbers."""

_CPU_KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001 - see attention_with_weight


class Sequences(NamedTuple):
    """Runs of neighbouring rows of a matrix, one for each sequence."""

    starts: Ints
    lengths: Ints

    def rows(self) -> Ints:
        """All rows, sequence by sequence."""
        ends = np.cumsum(self.lengths)
        return np.arange(int(self.lengths.sum())) + np.repeat(self.starts - ends + self.lengths, self.lengths)

    def grid(self, chosen: Ints) -> Ints:
        """Rows of the chosen sequences, (chosen, longest of them); a short one repeats its last row."""
        column = np.arange(int(self.lengths[chosen].max()))
        return self.starts[chosen, None] + np.minimum(column, self.lengths[chosen, None] - 1)


@dataclass(frozen=True)
class SequenceAttention:
    """Which queries see which keys.

    Args:
        queries: every sequence has a row at least.
        keys: as many sequences; that of each sequence of queries has a row at least.
        device: of the tensors.
        is_causal: whether a sequence's queries see its keys up to their own place only; both are then equally long.
    """

    queries: Sequences
    keys: Sequences
    device: torch.device
    is_causal: bool = False

    @classmethod
    def of(
        cls, queries: Sequences, keys: Sequences, device: torch.device, *, is_causal: bool = False
    ) -> SequenceAttention:
        """Of sequences of which some have no rows: these, and their partners, are left out."""
        some = (queries.lengths > 0) & (keys.lengths > 0)
        if some.all():
            return cls(queries, keys, device, is_causal)
        left = Sequences(queries.starts[some], queries.lengths[some])
        seen = left if keys is queries else Sequences(keys.starts[some], keys.lengths[some])
        return cls(left, seen, device, is_causal)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Outcome of each query and the logarithm of its softmax's denominator.

        Args:
            query: (rows, heads, head_dim).
            key: (key rows, kv_heads, head_dim).
            value: like key.

        Returns:
            (rows, heads, head_dim), and (rows, heads) in float32. A row of no sequence has zeros and `UNSEEN`.
        """
        if query.device.type == "cuda" and query.dtype == torch.bfloat16:
            return self.packed(query, key, value)
        return self.grouped(query, key, value)

    def grouped(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """See `__call__`: a call for each group of similar lengths."""
        outcome, weight = _nothing_seen(query)
        for group in self._groups:
            group.attend(query, key, value, outcome, weight)
        return outcome, weight

    def packed(self, query: Tensor, key: Tensor, value: Tensor, kernel: Kernel | None = None) -> tuple[Tensor, Tensor]:
        """See `__call__`: one call for all.

        Args:
            query: as there.
            key: as there.
            value: as there.
            kernel: other than torch's for GPUs.
        """
        outcome, weight = _nothing_seen(query)
        if not len(self.queries.lengths):
            return outcome, weight
        query_rows, key_rows, query_bounds, key_bounds = self._flat
        attended, weights = (kernel or gpu_kernel)(
            query.index_select(0, query_rows),
            key.index_select(0, key_rows),
            value.index_select(0, key_rows),
            query_bounds,
            key_bounds,
            int(self.queries.lengths.max()),
            int(self.keys.lengths.max()),
            self.is_causal,
        )
        return outcome.index_copy_(0, query_rows, attended), weight.index_copy_(0, query_rows, weights.T)

    @cached_property
    def _groups(self) -> list[_Group]:
        return [self._group(chosen) for chosen in self._similar()]

    @cached_property
    def _flat(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows of all queries and of all keys, and where each sequence begins among these."""
        rows = (on_device(sequences.rows(), self.device) for sequences in (self.queries, self.keys))
        bounds = (
            on_device(np.concatenate([[0], np.cumsum(sequences.lengths)]), self.device).int()
            for sequences in (self.queries, self.keys)
        )
        return *rows, *bounds  # type: ignore[return-value]

    def _similar(self) -> Iterator[Ints]:
        """The sequences, in groups of similar lengths of queries and of keys."""
        if not len(self.queries.lengths):
            return
        if self._is_one_call():
            yield np.arange(len(self.queries.lengths))
            return
        order = np.lexsort((self.keys.lengths, self.queries.lengths))[::-1]  # the longest first
        lengths = np.stack((self.queries.lengths, self.keys.lengths), axis=1)[order]
        # There are few different lengths, and many sequences.
        changes = [*(np.flatnonzero((lengths[1:] != lengths[:-1]).any(axis=1)) + 1).tolist(), len(order)]
        start = place = pairs = longest = most_keys = keys_before = 0
        for end in changes:
            queries, keys = lengths[place].tolist()
            pairs += (end - place) * queries * keys
            most_keys = max(most_keys, keys)
            if place > start and (end - start) * longest * most_keys > pairs + MOST_PADDING:
                yield from _cut(order[start:place], longest, keys_before)
                start, pairs, most_keys = place, (end - place) * queries * keys, keys
            longest = queries if place == start else longest
            keys_before, place = most_keys, end
        yield from _cut(order[start:], longest, most_keys)

    def _is_one_call(self) -> bool:
        """Whether nothing is gained by several: so it is for most pages alone."""
        longest, most_keys = int(self.queries.lengths.max()), int(self.keys.lengths.max())
        if max(longest, most_keys) >= LONG or len(self.queries.lengths) * (longest + most_keys) > MOST_ROWS:
            return False
        pairs = int(self.queries.lengths @ self.keys.lengths)
        return len(self.queries.lengths) * longest * most_keys <= pairs + MOST_PADDING

    def _single(self, sequence: int) -> _Group:
        """Its rows need no layout."""
        queries, keys = (
            slice(int(rows.starts[sequence]), int(rows.starts[sequence] + rows.lengths[sequence]))
            for rows in (self.queries, self.keys)
        )
        return _Group(queries, keys, self.is_causal)

    def _group(self, chosen: Ints) -> _Group:
        if len(chosen) == 1:
            return self._single(int(chosen[0]))
        grid = self.queries.grid(chosen)
        is_query = (np.arange(grid.shape[1]) < self.queries.lengths[chosen, None]).ravel()
        queries = keys = on_device(grid, self.device)
        if self.keys is not self.queries:
            keys = on_device(self.keys.grid(chosen), self.device)
        return _Group(
            queries,
            keys,
            self.is_causal,
            # Causality hides repeated keys from all queries but repeated ones.
            None if self.is_causal else self._hidden(chosen),
            rows=on_device(grid.ravel()[is_query], self.device),
            cells=None if is_query.all() else on_device(np.flatnonzero(is_query), self.device),
        )

    def _hidden(self, chosen: Ints) -> Tensor | None:
        """(chosen, longest) minus infinity for keys that only fill up; None where none does."""
        lengths = self.keys.lengths[chosen]
        fills_up = np.arange(int(lengths.max())) >= lengths[:, None]
        if not fills_up.any():
            return None
        return on_device(np.where(fills_up, np.float32(-np.inf), np.float32(0)), self.device)


@dataclass(frozen=True, slots=True)
class _Group:
    """Sequences that make one call: their rows as grids (sequences, longest), or, of a single one, as slices."""

    queries: Tensor | slice
    keys: Tensor | slice
    is_causal: bool
    hidden: Tensor | None = None  # (sequences, longest) minus infinity for keys that only fill up
    rows: Tensor | None = None  # (queries,) those that do not only fill up
    cells: Tensor | None = None  # (queries,) of each in the flattened grid; None where nothing fills up

    def attend(self, query: Tensor, key: Tensor, value: Tensor, outcome: Tensor, weight: Tensor) -> None:
        """Writes the group's rows of outcome and weight."""
        heads = query.shape[1]
        attended, weights = attention_with_weight(
            _laid_out(query, self.queries, heads),
            _laid_out(key, self.keys, heads),
            _laid_out(value, self.keys, heads),
            is_causal=self.is_causal,
            hidden=None if self.hidden is None else self.hidden[:, None, None].to(query.dtype),
        )
        attended, weights = attended.transpose(1, 2).flatten(0, 1), weights.transpose(1, 2).flatten(0, 1)
        if self.rows is None:
            outcome[self.queries], weight[self.queries] = attended, weights
            return
        if self.cells is not None:
            attended, weights = attended.index_select(0, self.cells), weights.index_select(0, self.cells)
        outcome.index_copy_(0, self.rows, attended)
        weight.index_copy_(0, self.rows, weights)


def _cut(group: Ints, longest: int, most_keys: int) -> Iterator[Ints]:
    """The group in as few calls as `LONG` and `MOST_ROWS` let it be."""
    size = 1 if max(longest, most_keys) >= LONG else max(1, MOST_ROWS // (longest + most_keys))
    for start in range(0, len(group), size):
        yield np.sort(group[start : start + size])


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


def _nothing_seen(query: Tensor) -> tuple[Tensor, Tensor]:
    """Outcome and weight of queries (rows, heads, head_dim) of no sequence."""
    return torch.zeros_like(query), torch.full(query.shape[:2], UNSEEN, dtype=torch.float32, device=query.device)


def _laid_out(rows: Tensor, grid: Tensor | slice, heads: int) -> Tensor:
    """Rows (n, kv_heads, head_dim) as (sequences, heads, longest, head_dim): a head for each query head it serves."""
    if isinstance(grid, slice):
        laid_out = rows[grid][None]
    else:
        laid_out = rows.index_select(0, grid.flatten()).view(*grid.shape, *rows.shape[1:])
    group = heads // rows.shape[1]
    by_head = laid_out.transpose(1, 2)
    return by_head if group == 1 else by_head.repeat_interleave(group, dim=1)


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor there."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)


def attention_with_weight(
    query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool = False, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention that also gives the logarithm of each softmax's denominator.

    The fused kernel behind `torch.nn.functional.scaled_dot_product_attention` on a CPU computes it, but the public
    function does not return it. So it is called by name; on other devices plain operations are used.

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
