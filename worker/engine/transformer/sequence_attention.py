"""Attention of many sequences at once, whatever their lengths: each sequence of queries sees one sequence of keys.

In bfloat16 on a GPU all of them are one call of the kernel for variable lengths. The fused kernel of a CPU wants equal
lengths: sequences of similar lengths are padded to the longest of them and make one call together. Keys are padded
further, to a multiple of `LANES`, since the kernel is slow with what is left over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.transformer.attention_kernels import LANES, Kernel, attention_with_weight, gpu_kernel

Ints = NDArray[np.int64]

MOST_PADDING: Final = 10_000
"""Pairs of a query and a key that only fill up a call. More of them take longer than another call would."""
LONG: Final = 256
"""So many queries or keys make a call of their own: that costs less than laying them out beside others."""
MOST_ROWS: Final = 8_192
"""Rows of queries and keys in one call, which bounds the memory that laying them out takes."""
UNSEEN: Final = torch.finfo(torch.float32).min
"""Log-sum-exp over no keys at all; finite, so that differences are numbers."""


class Sequences(NamedTuple):
    """Runs of neighbouring rows of a matrix, one for each sequence."""

    starts: Ints
    lengths: Ints

    def rows(self) -> Ints:
        """All rows, sequence by sequence."""
        ends = np.cumsum(self.lengths)
        return np.arange(int(self.lengths.sum())) + np.repeat(self.starts - ends + self.lengths, self.lengths)

    def rows_of(self, sequence: int) -> slice:
        """Rows of one of them."""
        start = int(self.starts[sequence])
        return slice(start, start + int(self.lengths[sequence]))

    def grid(self, chosen: Ints, step: int = 1) -> Ints:
        """Rows of the chosen sequences, (chosen, longest of them, rounded up to a multiple of the step); a short one
        repeats its last row.
        """
        column = np.arange(-(-int(self.lengths[chosen].max()) // step) * step)
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
    _left_out_of: dict[int, Tensor | None] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        outcome, weight = self._begun(query)
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
        outcome, weight = self._begun(query)
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

    def _begun(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Outcome and weight of the queries, of which those of no sequence are filled in."""
        outcome = torch.empty_like(query)
        weight = torch.empty(query.shape[:2], dtype=torch.float32, device=query.device)
        if (left_out := self._left_out(len(query))) is not None:
            outcome.index_fill_(0, left_out, 0.0)
            weight.index_fill_(0, left_out, UNSEEN)
        return outcome, weight

    def _left_out(self, rows: int) -> Tensor | None:
        """Of so many rows of queries those of no sequence; None where there are none."""
        if rows not in self._left_out_of:
            of_none = np.ones(rows, np.bool_)
            of_none[self.queries.rows()] = False
            self._left_out_of[rows] = on_device(np.flatnonzero(of_none), self.device) if of_none.any() else None
        return self._left_out_of[rows]

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

    def _group(self, chosen: Ints) -> _Group:
        keys, hidden = self._keys_of(chosen)
        if len(chosen) == 1:  # its queries need no layout
            return _Group(self.queries.rows_of(int(chosen[0])), keys, self.is_causal, hidden)
        grid = self.queries.grid(chosen)
        is_query = (np.arange(grid.shape[1]) < self.queries.lengths[chosen, None]).ravel()
        return _Group(
            on_device(grid, self.device),
            keys,
            self.is_causal,
            hidden,
            rows=on_device(grid.ravel()[is_query], self.device),
            cells=None if is_query.all() else on_device(np.flatnonzero(is_query), self.device),
        )

    def _keys_of(self, chosen: Ints) -> tuple[Tensor | slice, Tensor | None]:
        """Rows of the chosen sequences' keys, and (chosen, places) minus infinity for those that only fill up; None
        where none does, or where causality hides them from all queries but those that fill up, too.
        """
        grid = self.keys.grid(chosen, LANES)
        fills_up = np.arange(grid.shape[1]) >= self.keys.lengths[chosen, None]
        if len(chosen) == 1 and not fills_up.any():
            return self.keys.rows_of(int(chosen[0])), None
        rows = on_device(grid, self.device)
        if self.is_causal or not fills_up.any():
            return rows, None
        return rows, on_device(np.where(fills_up, np.float32(-np.inf), np.float32(0)), self.device)


@dataclass(frozen=True, slots=True)
class _Group:
    """Sequences that make one call: their rows as grids (sequences, places), or, of a single one, as slices."""

    queries: Tensor | slice
    keys: Tensor | slice
    is_causal: bool
    hidden: Tensor | None  # (sequences, places) minus infinity for keys that only fill up
    rows: Tensor | None = None  # (queries,) those that do not only fill up
    cells: Tensor | None = None  # (queries,) of each in the flattened grid; None where nothing fills up

    def attend(self, query: Tensor, key: Tensor, value: Tensor, outcome: Tensor, weight: Tensor) -> None:
        """Writes the group's rows of outcome and weight."""
        attended, weights = attention_with_weight(
            _laid_out(query, self.queries),
            _laid_out(key, self.keys),
            _laid_out(value, self.keys),
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


def _laid_out(rows: Tensor, grid: Tensor | slice) -> Tensor:
    """Rows (n, heads, head_dim) as (sequences, heads, places, head_dim)."""
    if isinstance(grid, slice):
        return rows[grid][None].transpose(1, 2)
    return rows.index_select(0, grid.flatten()).view(*grid.shape, *rows.shape[1:]).transpose(1, 2)


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor there."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
