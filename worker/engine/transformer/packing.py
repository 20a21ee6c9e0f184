"""Many requests as one matrix of tokens: prefix and suffixes of the first request, then of the second, ...

Linear layers see packed rows only; padding, where a kernel wants it, is attention's affair.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from worker.engine.transformer.linear import ROW_STEP, rounded, row_slices
from worker.engine.transformer.sequence_attention import SequenceAttention, Sequences, on_device
from worker.engine.transformer.tree_attention import TreeAttention

PLANS: Final = 2
"""Remembered: a stage's, and that of a chunk of a prefix in between."""


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
    answer_rows: Tensor  # (suffixes,) row of each suffix's last token
    attention: TreeAttention  # of every row
    answers_attention: TreeAttention  # of the suffixes' last tokens alone


class Packer:
    """Packs batches for one device, and remembers the last plans: while no candidate leaves, the stages of a batch have
    the same.

    Args:
        device: the engine's.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._plans: dict[Hashable, Packed] = {}  # the latest last

    def forget(self) -> None:
        """Plan the next batch anew."""
        self._plans.clear()

    def __call__(self, segments: Sequence[Segment]) -> Packed:
        """See `pack`; a plan may be that of an earlier batch of equal lengths, and is not to be changed."""
        lengths = tuple(
            (segment.prefix_length, segment.prefix_start, segment.prefix_rows, *segment.suffix_lengths.tolist())
            for segment in segments
        )
        known = self._plans.pop(lengths, None)
        if known is None and len(self._plans) == PLANS:
            del self._plans[next(iter(self._plans))]
        packed = pack(segments, self._device) if known is None else known
        self._plans[lengths] = packed
        return packed


def pack(segments: Sequence[Segment], device: torch.device) -> Packed:
    """Lays out parts one behind the other; each suffix has at least one token. Only chunks of prefixes have no suffix,
    and then nobody in the batch has one.
    """
    lengths = np.concatenate([segment.suffix_lengths for segment in segments])  # (suffixes,)
    spans, positions, suffix_starts = _walk(segments)
    rows = spans[-1].end
    padded_rows = rounded(rows, ROW_STEP)
    positions.append(np.zeros(padded_rows - rows, np.int64))
    suffixes = Sequences(np.concatenate(suffix_starts), lengths)
    return Packed(
        spans=tuple(spans),
        rows=rows,
        padded_rows=padded_rows,
        slices=row_slices(padded_rows, device),
        longest=max(segment.prefix_length + int(segment.suffix_lengths.max(initial=0)) for segment in segments),
        positions=on_device(np.concatenate(positions), device),
        answer_rows=on_device(suffixes.starts + lengths - 1, device),
        attention=_attention(segments, spans, suffixes, device),
        answers_attention=_answers_attention(segments, spans, suffixes, device),
    )


def _attention(
    segments: Sequence[Segment], spans: Sequence[Span], suffixes: Sequences, device: torch.device
) -> TreeAttention:
    """Of every row. All suffixes of a request see its prefix as one sequence of queries."""
    whole = _whole_prefixes(segments)
    before = Sequences(whole.starts, np.array([segment.prefix_start for segment in segments]))
    prefix_rows = _between([span.start for span in spans], [span.middle for span in spans])
    suffix_rows = _between([span.middle for span in spans], [span.end for span in spans])
    own = _chained(prefix_rows, suffixes)
    return TreeAttention(
        SequenceAttention.of(own, own, device, is_causal=True),
        SequenceAttention.of(_chained(prefix_rows, suffix_rows), _chained(before, whole), device),
    )


def _answers_attention(
    segments: Sequence[Segment], spans: Sequence[Span], suffixes: Sequences, device: torch.device
) -> TreeAttention:
    """Of the last token of each suffix, which sees all of it; queries are numbered as the suffixes are."""
    each = Sequences(np.arange(len(suffixes.lengths)), np.ones_like(suffixes.lengths))
    of_request = _between([span.answers.start for span in spans], [span.answers.stop for span in spans])
    return TreeAttention(
        SequenceAttention.of(each, suffixes, device),
        SequenceAttention.of(of_request, _whole_prefixes(segments), device),
    )


def _whole_prefixes(segments: Sequence[Segment]) -> Sequences:
    """Where each request's prefix lies among all of them."""
    bounds = np.cumsum([0, *(segment.prefix_length for segment in segments)])
    return _between(bounds[:-1], bounds[1:])


def _between(starts: ArrayLike, ends: ArrayLike) -> Sequences:
    starts = np.asarray(starts, np.int64)
    return Sequences(starts, np.asarray(ends, np.int64) - starts)


def _chained(some: Sequences, others: Sequences) -> Sequences:
    return Sequences(np.concatenate([some.starts, others.starts]), np.concatenate([some.lengths, others.lengths]))


def _walk(segments: Sequence[Segment]) -> tuple[list[Span], list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Spans, every row's position in its prompt, and each suffix's first row, part by part."""
    spans: list[Span] = []
    positions: list[NDArray[np.int64]] = []
    suffix_starts: list[NDArray[np.int64]] = []
    start = answer = 0
    for segment in segments:
        middle = start + segment.prefix_rows
        end = middle + int(segment.suffix_lengths.sum())
        answers = answer + len(segment.suffix_lengths)
        spans.append(Span(start, middle, end, slice(answer, answers)))
        first = segment.prefix_start
        positions.append(np.arange(first, first + segment.prefix_rows))
        after_prefix = np.full_like(segment.suffix_lengths, segment.prefix_length)
        positions.append(Sequences(after_prefix, segment.suffix_lengths).rows())
        suffix_starts.append(middle + np.cumsum(segment.suffix_lengths) - segment.suffix_lengths)
        start, answer = end, answers
    return spans, positions, suffix_starts
