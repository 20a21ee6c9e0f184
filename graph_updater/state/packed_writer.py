"""Writes the states of many nodes as packed records (`schemas.packed_states`), from the tables' columns to bytes
without a Python object in between. `schemas.packed_states.pack_state` is the plain reference.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graph_updater.graph.lists import Lists
from graph_updater.state.histories import POSITIVE, WITHDRAWN, Entries
from graph_updater.state.identities import USER
from graph_updater.state.name_bytes import NameColumns
from graph_updater.state.nodes import Nodes
from schemas.packed_states import DTYPES, HEADER, ITEM_MAGIC, USER_MAGIC

_WORD: Final = 8
_HEADER_WORDS: Final = HEADER.itemsize // _WORD
_USER: Final = int.from_bytes(USER_MAGIC, "little")
_ITEM: Final = int.from_bytes(ITEM_MAGIC, "little")
_MOST: Final = 2**63 - 1


class _Written(NamedTuple):
    """What is written besides names and histories."""

    magic: int
    dtype: int  # an index into DTYPES
    dim: int
    space: NDArray[np.uint8]
    events: NDArray[np.uint8]  # (cells, bytes) ids of events, filled up with zeros
    embedding: NDArray[np.uint8]  # (nodes, bytes)
    has_embedding: NDArray[np.bool_]  # (nodes,)
    numbers: NDArray[np.int64]  # (nodes, 6) in the order of the header


def packed_records(nodes: NDArray[np.int32], kind: int, tables: Nodes, space: str, now_ms: int) -> list[bytes]:
    """The packed states of nodes of one kind, in their order.

    Args:
        nodes: (n,) known ones.
        kind: USER or ITEM.
        tables: their facts, histories and names; read only.
        space: of the embeddings.
        now_ms: time of publication.
    """
    names, written = tables.ids.name_bytes.columns(), _written(nodes, kind, tables, space, now_ms)
    lists, cells = tables.histories.lists, tables.histories.cells
    sizes = np.zeros(len(nodes), np.int64)
    _measure(nodes, names, lists, cells, written, sizes)
    ends = np.cumsum(sizes)
    words = np.zeros(int(sizes.sum()), np.int64)
    _write(nodes, names, lists, cells, written, ends - sizes, words)
    whole = memoryview(words.view(np.uint8))  # type: ignore[arg-type]  # it has the buffer protocol
    return [
        bytes(whole[start:end])
        for start, end in zip((_WORD * (ends - sizes)).tolist(), (_WORD * ends).tolist(), strict=True)
    ]


def _written(nodes: NDArray[np.int32], kind: int, tables: Nodes, space: str, now_ms: int) -> _Written:
    facts = tables.facts
    published = facts.published[nodes]
    counts = [facts.version[nodes], facts.impressions[nodes], facts.positives[nodes], facts.grades[nodes]]
    counts = [np.where(count < 0, _MOST, count) for count in counts]  # one past the end of its range stays there
    has_embedding: NDArray[np.bool_] = np.asarray(published.any(axis=1))
    counts[0] = np.where(has_embedding, np.maximum(counts[0], 1), 0)
    numbers = np.stack([*counts, facts.last_event_ms[nodes], np.full(len(nodes), now_ms)], axis=1)
    return _Written(
        magic=_USER if kind == USER else _ITEM,
        dtype=DTYPES.index(str(published.dtype)),
        dim=tables.dim,
        space=np.frombuffer(space.encode(), np.uint8),
        events=tables.histories.cells.event.view(np.uint8),
        embedding=published.view(np.uint8),
        has_embedding=has_embedding,
        numbers=np.ascontiguousarray(numbers, np.int64),
    )


@njit(cache=True, nogil=True)
def _words(length: int) -> int:
    return (length + 7) // 8


@njit(cache=True, nogil=True)
def _event_bytes(cells: Entries, cell: int) -> int:
    """Bytes of an entry's event id without the zeros that fill it up."""
    for word in range(cells.event.shape[1] - 1, -1, -1):
        value = cells.event[cell, word]
        if value != 0:
            length = 8 * word
            while value != 0:
                value >>= np.uint64(8)
                length += 1
            return length
    return 0


@njit(cache=True, nogil=True)
def _measure(
    nodes: NDArray[np.int32],
    names: NameColumns,
    lists: Lists,
    cells: Entries,
    written: _Written,
    sizes: NDArray[np.int64],
) -> None:
    """Fills in how many words each record takes."""
    for i in range(nodes.shape[0]):
        node, past = nodes[i], 0
        text = np.int64(names.length[node])
        if written.has_embedding[i]:
            text += written.space.shape[0]
        if written.magic == _USER:
            for cell in range(lists.start[node], lists.start[node] + lists.length[node]):
                if cells.judgement[cell] != WITHDRAWN:
                    past += 1
                    text += np.int64(names.length[cells.item[cell]]) + _event_bytes(cells, cell)
        embedding = _words(written.embedding.shape[1]) if written.has_embedding[i] else 0
        sizes[i] = _HEADER_WORDS + 2 * past + embedding + 2 * _words(past) + 2 * _words(2 * past) + _words(text)


@njit(cache=True, nogil=True)
def _put(text: NDArray[np.uint8], at: int, source: NDArray[np.uint8], start: int, length: int) -> int:
    """Copies bytes; returns where the next go."""
    for k in range(length):
        text[at + k] = source[start + k]
    return at + length


@njit(cache=True, nogil=True)
def _write(
    nodes: NDArray[np.int32],
    names: NameColumns,
    lists: Lists,
    cells: Entries,
    written: _Written,
    starts: NDArray[np.int64],
    words: NDArray[np.int64],
) -> None:
    """Writes each node's record from its word on."""
    octets = words.view(np.uint8)
    for i in range(nodes.shape[0]):
        node, at, past = nodes[i], starts[i], 0
        first = last = lists.start[node]
        if written.magic == _USER:
            last += lists.length[node]
        for cell in range(first, last):
            past += cells.judgement[cell] != WITHDRAWN
        there = written.has_embedding[i]
        embedding = at + _HEADER_WORDS + 2 * past
        outcomes = 8 * (embedding + (_words(written.embedding.shape[1]) if there else 0))
        grades = outcomes + 8 * _words(past)
        name_lengths = grades + 8 * _words(past)
        event_lengths = name_lengths + 8 * _words(2 * past)
        text = event_lengths + 8 * _words(2 * past)
        _write_header(words, at, written, i, past, names.length[node])
        if there:
            _put(octets, 8 * embedding, written.embedding[i], 0, written.embedding.shape[1])
        text = _put(octets, text, names.text, names.start[node], names.length[node])
        if there:
            text = _put(octets, text, written.space, 0, written.space.shape[0])
        k = 0
        for cell in range(first, last):
            if cells.judgement[cell] == WITHDRAWN:
                continue
            item = cells.item[cell]
            words[at + _HEADER_WORDS + k] = cells.time[cell]
            words[at + _HEADER_WORDS + past + k] = np.int64(names.hashes[item])
            octets[outcomes + k] = cells.judgement[cell] == POSITIVE
            octets[grades + k] = cells.grade[cell]
            _put_short(octets, name_lengths + 2 * k, np.int64(names.length[item]))
            text = _put(octets, text, names.text, names.start[item], names.length[item])
            k += 1
        k = 0
        for cell in range(first, last):
            if cells.judgement[cell] == WITHDRAWN:
                continue
            length = _event_bytes(cells, cell)
            _put_short(octets, event_lengths + 2 * k, length)
            text = _put(octets, text, written.events[cell], 0, length)
            k += 1
        end = starts[i + 1] if i + 1 < nodes.shape[0] else words.shape[0]
        words[at + _HEADER_WORDS - 1] |= (end - at) * 8 << 32


@njit(cache=True, nogil=True)
def _write_header(words: NDArray[np.int64], at: int, written: _Written, i: int, past: int, name_bytes: int) -> None:
    """Everything but the record's length."""
    words[at] = written.magic
    words[at + 1] = np.int64(past) << 32
    if written.has_embedding[i]:
        words[at] |= np.int64(written.dtype) << 32 | np.int64(written.space.shape[0]) << 48
        words[at + 1] |= written.dim
    for k in range(written.numbers.shape[1]):
        words[at + 2 + k] = written.numbers[i, k]
    words[at + _HEADER_WORDS - 1] = np.int64(name_bytes)


@njit(cache=True, nogil=True)
def _put_short(octets: NDArray[np.uint8], at: int, number: int) -> None:
    octets[at] = number & 255
    octets[at + 1] = number >> 8
