"""Many requests as one matrix of tokens: prefix and suffixes of the first request, then of the second, ...

Linear layers see packed rows only. Suffixes are padded inside attention alone, to the longest of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.transformer.linear import ROW_STEP, rounded, row_slices


class Segment(Protocol):
    """What packing has to know of a request's part, or of a chunk of its prefix."""

    @property
    def prefix_length(self) -> int:
        """Tokens of its prefix, for the suffixes' positions."""

    @property
    def prefix_start(self) -> int:
        """Position of the first of these that is computed in this batch: the prefix cache may hold those before."""

    @property
    def prefix_rows(self) -> int:
        """How many of these are computed in this batch, one behind the other; 0 where the prefix cache holds all."""

    @property
    def suffix_lengths(self) -> NDArray[np.int64]:
        """(candidates left,)."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where a request lies: what is computed of its prefix in rows [start, middle), its suffixes in rows [middle, end).

    `answers` are its suffixes among all suffixes of the batch.
    """

    start: int
    middle: int
    end: int
    answers: slice


@dataclass(frozen=True, slots=True)
class Packed:
    """Index arrays of one batch, on the engine's device."""

    spans: tuple[Span, ...]
    rows: int  # of tokens
    padded_rows: int  # rounded up, see `worker.engine.transformer.linear`
    slices: tuple[slice, ...]  # of the padded rows, which products take one after the other
    longest: int  # prefix and suffix, of all suffixes: positions are below
    positions: Tensor  # (padded_rows,)
    suffixes: int
    suffix_rows: Tensor  # (suffix tokens,) row of each
    suffix_grid: Tensor  # (suffixes, longest) row of each suffix's tokens; a short suffix repeats its last
    suffix_cells: Tensor  # (suffix tokens,) cell of each in the flattened grid
    answer_rows: Tensor  # (suffixes,) row of each suffix's last token


def pack(segments: Sequence[Segment], device: torch.device) -> Packed:
    """Lays out parts one behind the other; each suffix has at least one token. Only chunks of prefixes have no suffix,
    and then nobody in the batch has one.
    """
    lengths = np.concatenate([segment.suffix_lengths for segment in segments])  # (suffixes,)
    spans, positions, suffix_rows = _walk(segments)
    rows = spans[-1].end
    padded_rows = rounded(rows, ROW_STEP)
    positions.append(np.zeros(padded_rows - rows, np.int64))
    ends = np.cumsum(lengths)
    longest = int(lengths.max(initial=0))
    column = np.arange(longest)
    grid = (ends - lengths)[:, None] + np.minimum(column, lengths[:, None] - 1)  # (suffixes, longest)
    cells = np.flatnonzero(column < lengths[:, None])
    all_suffix_rows = np.concatenate(suffix_rows)

    def on_device(index: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(index).to(device, non_blocking=True)

    return Packed(
        spans=tuple(spans),
        rows=rows,
        padded_rows=padded_rows,
        slices=row_slices(padded_rows, device),
        longest=max(segment.prefix_length + int(segment.suffix_lengths.max(initial=0)) for segment in segments),
        positions=on_device(np.concatenate(positions)),
        suffixes=len(lengths),
        suffix_rows=on_device(all_suffix_rows),
        suffix_grid=on_device(all_suffix_rows[grid]),
        suffix_cells=on_device(cells),
        answer_rows=on_device(all_suffix_rows[ends - 1]),
    )


def _walk(segments: Sequence[Segment]) -> tuple[list[Span], list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Spans, every row's position in its prompt, and the rows of suffix tokens, part by part."""
    spans: list[Span] = []
    positions: list[NDArray[np.int64]] = []
    suffix_rows: list[NDArray[np.int64]] = []
    start = answer = 0
    for segment in segments:
        middle = start + segment.prefix_rows
        end = middle + int(segment.suffix_lengths.sum())
        answers = answer + len(segment.suffix_lengths)
        spans.append(Span(start, middle, end, slice(answer, answers)))
        first = segment.prefix_start
        positions.append(np.arange(first, first + segment.prefix_rows))
        positions.append(segment.prefix_length + offsets(segment.suffix_lengths))
        suffix_rows.append(np.arange(middle, end))
        start, answer = end, answers
    return spans, positions, suffix_rows


def offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ..., length - 1 of every suffix, one behind the other."""
    ends = np.cumsum(lengths)
    return np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
