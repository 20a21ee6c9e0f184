"""Index arrays of packed batches."""

from typing import NamedTuple

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.transformer.linear import ROW_STEP, rounded
from worker.engine.transformer.packing import PLANS, Packed, Packer, pack

CPU = torch.device("cpu")


class Segment(NamedTuple):
    """A part by hand."""

    prefix_length: int
    prefix_start: int
    prefix_rows: int
    suffix_lengths: np.ndarray


segments = st.lists(
    st.builds(
        lambda prefix, start, rows, lengths: Segment(
            prefix, min(start, prefix), min(rows, prefix - min(start, prefix)), np.array(lengths)
        ),
        st.integers(1, 9),
        st.integers(0, 9),
        st.integers(0, 9),
        st.lists(st.integers(1, 7), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60)
@given(segments)
def test_rows_are_tokens_and_nothing_else(parts):
    """However mixed the lengths, a batch has a row per token, and at most one step of idle rows at its end."""
    packed = pack(parts, CPU)
    assert packed.rows == sum(part.prefix_rows + part.suffix_lengths.sum() for part in parts)
    assert packed.padded_rows == rounded(packed.rows, ROW_STEP)


@settings(max_examples=60)
@given(segments)
def test_positions_go_on_where_the_prefix_ends(parts):
    """A prefix counts from where its computed rows begin; each of its suffixes counts on from its whole length."""
    packed = pack(parts, CPU)
    expected = []
    for part in parts:
        expected += range(part.prefix_start, part.prefix_start + part.prefix_rows)
        for length in part.suffix_lengths:
            expected += range(part.prefix_length, part.prefix_length + length)
    assert packed.positions[: packed.rows].tolist() == expected
    assert packed.longest == max(part.prefix_length + max(part.suffix_lengths) for part in parts)


@settings(max_examples=60)
@given(segments)
def test_answers_are_the_last_tokens_of_suffixes(parts):
    """The answer of a suffix is read at its last row."""
    packed = pack(parts, CPU)
    ends, row = [], 0
    for part in parts:
        row += part.prefix_rows
        for length in part.suffix_lengths:
            row += int(length)
            ends.append(row - 1)
    assert packed.answer_rows.tolist() == ends


def told(packed: Packed) -> list[object]:
    """Everything that a plan says, in plain numbers."""
    attentions = [*packed.attention, *packed.answers_attention]
    sequences = [part for attention in attentions for part in (*attention.queries, *attention.keys)]
    return [
        packed.spans,
        (packed.rows, packed.padded_rows, packed.slices, packed.longest),
        packed.positions.tolist(),
        packed.answer_rows.tolist(),
        [part.tolist() for part in sequences],
        [attention.is_causal for attention in attentions],
    ]


@settings(max_examples=60)
@given(st.data())
def test_a_remembered_plan_is_that_of_equal_lengths(data):
    """Through any series of batches, many of them alike, every plan is what it would be anew; those of the last few
    different ones, and no others, are not made again.
    """
    few = data.draw(st.lists(segments, min_size=1, max_size=3))
    packer, last, earlier = Packer(CPU), {}, []
    for parts in data.draw(st.lists(st.sampled_from(few), min_size=1, max_size=12)):
        if data.draw(st.booleans()):  # a batch that differs in one length
            index = data.draw(st.integers(0, len(parts) - 1))
            field = data.draw(st.sampled_from(Segment._fields[:3]))
            changed = parts[index]._replace(**{field: getattr(parts[index], field) + 1})
            parts = [*parts[:index], changed, *parts[index + 1 :]]  # noqa: PLW2901 - drawn anew
        packed = packer(parts)
        assert told(packed) == told(pack(parts, CPU))
        lengths = str([(*part[:3], part.suffix_lengths.tolist()) for part in parts])
        if lengths in last:
            assert last.pop(lengths) is packed
        else:
            assert all(packed is not plan for plan in earlier)
        earlier.append(packed)
        last[lengths] = packed
        last = dict(list(last.items())[-PLANS:])


@given(segments)
def test_lengths_that_change_in_place_are_seen(parts):
    """What a plan was made for is remembered by value: a part whose candidates leave has another plan."""
    packer = Packer(CPU)
    before = told(packer(parts))
    parts[0].suffix_lengths[0] += 1
    assert told(packer(parts)) == told(pack(parts, CPU)) != before


def test_what_is_forgotten_is_planned_anew():
    """The same plan, made again."""
    parts = [Segment(9, 0, 9, np.array([3, 4]))]
    packer = Packer(CPU)
    first = packer(parts)
    assert packer(parts) is first
    packer.forget()
    assert packer(parts) is not first
    assert told(packer(parts)) == told(first)
