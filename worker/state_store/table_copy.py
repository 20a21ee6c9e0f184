"""Tables as arrays and back: copied a slice of rows at a time while they change, restored all at once.

Each row of the copy is as it was when its slice was copied. So offsets noted before the first slice go with the copy:
whoever restores it applies every record after them once more, and a state replaces all before it. Users are copied
before items: an item whose row was given up or to another item meanwhile is named only by histories that have changed
since, and that are therefore read again.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Generator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from worker.state_store.columns import Rows
from worker.state_store.shared_values import NO_VALUE, SharedValues
from worker.state_store.tables import Tables

LAYOUT: Final = 2
"""Version of the arrays."""
Arrays = dict[str, NDArray[Any]]
_ROWS_AT_ONCE: Final = 2_048
"""Less than half a millisecond."""
_RESTORED_AT_ONCE: Final = 65_536
_COMMON: Final = ("embeddings", "embedded", "foreign", "counts")
_USERS: Final = ("versions", "event_times_ms", "partitions")


class TableCopy(NamedTuple):
    """A copy in slices. Joining them takes longer than a step, and is not for the tables' owner."""

    parts: list[Arrays]
    values: dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]]

    def joined(self) -> Arrays:
        """The arrays; the parts are given up one after the other."""
        arrays: Arrays = {}
        for name in dict.fromkeys(name for part in self.parts for name in part):
            arrays[name] = np.concatenate([part.pop(name) for part in self.parts if name in part])
        for name, (known, texts) in self.values.items():
            values = [(attribute, key, text) for (attribute, key), (_, text) in zip(known, texts, strict=True)]
            arrays[name] = np.frombuffer(msgspec.msgpack.encode(values), np.uint8)
        return arrays


def copy_steps(tables: Tables) -> Generator[str, None, TableCopy]:
    """Copies tables, a slice each step; to be run by the tables' owner, which may change them between two steps."""
    parts = [_users(tables, 0, 0), _items(tables, 0, 0)]  # so that every array is there, however few rows are
    for start in range(0, tables.users.ids.high_water, _ROWS_AT_ONCE):
        parts.append(_users(tables, start, min(start + _ROWS_AT_ONCE, tables.users.ids.high_water)))
        yield "users"
    # The number of items may grow between two steps; a history copied last may name the newest.
    start = 0
    while start < tables.items.ids.high_water:
        parts.append(_items(tables, start, min(start + _ROWS_AT_ONCE, tables.items.ids.high_water)))
        start += _ROWS_AT_ONCE
        yield "items"
    values = {
        f"item_{kind}_names": shared.values()
        for kind, shared in (("attributes", tables.items.attributes), ("title_words", tables.items.title_words))
    }
    return TableCopy(parts, values)


def restore(tables: Tables, arrays: Mapping[str, NDArray[Any]], partitions: Collection[int]) -> None:
    """Fills empty tables with a copy, of the users with those of some partitions.

    Raises:
        KeyError, ValueError, IndexError, msgspec.DecodeError: the arrays are no copy of tables of these widths.
    """
    rows_of = _restore_items(tables, arrays)
    _restore_users(tables, arrays, rows_of, partitions)
    tables.items.free_unused()


def _users(tables: Tables, start: int, end: int) -> Arrays:
    users = tables.users
    octets, lengths = users.ids.texts(start, end)
    live = start + np.flatnonzero(lengths)
    entries, _ = users.histories.entries_of(live)
    return {
        "user_ids": octets,
        "user_id_lengths": lengths[lengths > 0],
        "user_history_lengths": users.histories.lengths[live],
        "user_history_entries": entries,
        "user_history_grades": users.histories.grades_of(live),
        **{f"user_{name}": getattr(users, name)[live] for name in (*_COMMON, *_USERS)},
    }


def _items(tables: Tables, start: int, end: int) -> Arrays:
    items = tables.items
    rows = np.array([row for row in range(start, end) if items.ids.id_of(row)], np.int64)
    names = [items.ids.id_of(row).encode() for row in rows.tolist()]
    titles = [items.titles[row] for row in rows.tolist()]
    flat = array("i")
    for title in titles:
        flat.extend(title)
    return {
        "item_rows": rows,
        "item_ids": np.frombuffer(b"".join(names), np.uint8),
        "item_id_lengths": np.array([len(name) for name in names], np.int32),
        "item_titles": np.array(flat, np.int32),
        "item_title_lengths": np.array([len(title) for title in titles], np.int32),
        "item_attributes": items.attributes.of_items[rows],
        "item_title_words": items.title_words.of_items[rows],
        "item_told_by": items.told_by[rows],
        **{f"item_{name}": getattr(items, name)[rows] for name in _COMMON},
    }


def _restore_items(tables: Tables, arrays: Mapping[str, NDArray[Any]]) -> Rows:
    """Fills the items. Returns the row of each row in the copy; -1 where the copy has none."""
    items = tables.items
    names = _texts(arrays["item_ids"], arrays["item_id_lengths"])
    # One that left and came back during the copy may be in it twice: the later one counts, and is read again anyway.
    latest = {name: at for at, name in enumerate(names)}
    chosen = np.fromiter(latest.values(), np.int64, len(latest))
    rows = items.intern_many([name.decode() for name in latest])
    for name in (*_COMMON, "told_by"):
        getattr(items, name)[rows] = arrays[f"item_{name}"][chosen]
    items.foreign_count = int(items.foreign.sum())
    ends = np.cumsum(arrays["item_title_lengths"], dtype=np.int64)
    starts = (ends - arrays["item_title_lengths"])[chosen].tolist()
    flat = array("i", arrays["item_titles"].astype(np.int32).tobytes())
    for row, start, end in zip(rows.tolist(), starts, ends[chosen].tolist(), strict=True):
        items.titles[row] = flat[start:end]
    for kind, shared in (("attributes", items.attributes), ("title_words", items.title_words)):
        of_items = arrays[f"item_{kind}"][chosen]
        _restore_values(shared, rows, of_items, arrays[f"item_{kind}_names"], items.counts[rows])
    items.totals += items.counts[rows].sum(axis=0)
    items.changed.mark(rows)
    most = max(int(arrays["item_rows"].max(initial=-1)), int(arrays["user_history_entries"].max(initial=-1)) >> 1)
    rows_of = np.full(most + 1, -1, np.int64)
    rows_of[arrays["item_rows"]] = [items.ids.row(name.decode()) for name in names]
    return rows_of


def _restore_values(
    shared: SharedValues, rows: Rows, of_items: NDArray[np.int32], names: NDArray[np.uint8], counts: NDArray[np.int64]
) -> None:
    shared.restore(msgspec.msgpack.decode(names.tobytes(), type=list[tuple[str, str, str]]))
    if of_items.max(initial=NO_VALUE) >= len(shared):
        raise ValueError("an item has a value that has no name")
    shared.of_items[rows] = of_items
    shared.move_counts(rows, counts)


def _restore_users(
    tables: Tables, arrays: Mapping[str, NDArray[Any]], item_rows: Rows, partitions: Collection[int]
) -> None:
    users = tables.users
    keys = _texts(arrays["user_ids"], arrays["user_id_lengths"])
    # One that left and came back during the copy may be in it twice; the later row is read again anyway.
    wanted = np.isin(arrays["user_partitions"], list(partitions)).tolist()
    unique = {key: at for at, (key, is_wanted) in enumerate(zip(keys, wanted, strict=True)) if is_wanted}
    chosen = np.fromiter(unique.values(), np.int64, len(unique))
    rows, _ = users.ids.intern(list(unique))
    users.grow(users.ids.high_water)
    for name in (*_COMMON, *_USERS):
        getattr(users, name)[rows] = arrays[f"user_{name}"][chosen]
    users.foreign_count = int(users.foreign.sum())
    lengths = arrays["user_history_lengths"].astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    for begin in range(0, len(rows), _RESTORED_AT_ONCE):
        these = chosen[begin : begin + _RESTORED_AT_ONCE]
        count = lengths[these]
        cells = np.arange(count.sum()) + np.repeat(starts[these] - (np.cumsum(count) - count), count)
        entries = arrays["user_history_entries"][cells].astype(np.int64)
        items = item_rows[entries >> 1]
        there = items >= 0
        count = np.bincount(np.repeat(np.arange(len(these)), count)[there], minlength=len(these))
        items, grades = items[there], arrays["user_history_grades"][cells[there]]
        entries = 2 * items + (entries[there] & 1)
        users.histories.put(rows[begin : begin + _RESTORED_AT_ONCE], count, entries, grades)
        tables.items.move_mentions(np.zeros(0, np.int64), items)
    users.changed.mark(rows)


def _texts(octets: NDArray[np.uint8], lengths: NDArray[Any]) -> list[bytes]:
    whole, ends = octets.tobytes(), np.cumsum(lengths, dtype=np.int64)
    if int(lengths.sum(dtype=np.int64)) != len(whole):
        raise ValueError("the ids have not the lengths that are told")
    return [whole[start:end] for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True)]
