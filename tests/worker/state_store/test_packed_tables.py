"""Tables filled from packed records of many ids at once, against plain dictionaries and the reference reader."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_model import (
    BATCHES,
    COMMON,
    PARTITIONS,
    PAST,
    READER,
    TOPICS,
    USERS,
    TableModel,
    check,
    empty_tables,
    last_of_each,
    record,
    user_of,
)

from runtime.records import Record
from schemas.codec import MalformedRecord
from schemas.messages import PastInteraction, UserState
from schemas.packed_states import PACKED_HEADERS, StateDecoder, pack_state
from worker.state_store import tables as tables_module


@settings(max_examples=200, deadline=None)
@given(BATCHES, st.booleans())
def test_tables_hold_what_came_last(batches, packed):
    """Users and items come, change and leave in any order, several times in one batch; rows are used again."""
    tables, model = empty_tables(), TableModel()
    for batch in batches:
        applied = READER.apply(tables, [record(change, packed) for change in batch])
        assert not any(applied.refused.values())
        assert sum(applied.taken.values()) == len(batch)
        for change in last_of_each(batch):
            model.apply(change)
        tables.refresh_indexes()
        check(tables, model)


@settings(max_examples=200, deadline=None)
@given(BATCHES, st.lists(st.integers(0, PARTITIONS - 1), max_size=7), st.integers(1, 3))
def test_a_partition_that_is_given_up_takes_its_users_along(batches, given_up, removed_at_once):
    """A step at a time, between two of which states of other partitions come; and it may come back later."""
    tables, model, later = empty_tables(), TableModel(), iter(given_up)
    usual, tables_module._REMOVED_AT_ONCE = tables_module._REMOVED_AT_ONCE, removed_at_once
    try:
        for batch in batches:
            partition = next(later, -1)
            steps, changes = tables.remove_partition(partition), list(batch)
            for removed in steps:
                assert 0 < removed <= removed_at_once
                READER.apply(tables, [record(one) for one in changes if _is_elsewhere(one, partition)])
            READER.apply(tables, [record(one) for one in changes if _is_elsewhere(one, partition)])
            model.give_up(partition)
            for change in last_of_each(batch):
                if _is_elsewhere(change, partition):
                    model.apply(change)
            tables.refresh_indexes()
            check(tables, model)
            searchable = tables.users.is_searchable(np.arange(tables.users.ids.high_water))
            assert len(tables.user_index) == int((searchable & _embedded(tables)).sum())
    finally:
        tables_module._REMOVED_AT_ONCE = usual


def _is_elsewhere(change, partition):
    return record(change).topic != TOPICS.user_states or record(change).partition != partition


def _embedded(tables):
    return tables.users.embedded[: tables.users.ids.high_water]


@settings(max_examples=300, deadline=None)
@given(st.builds(UserState, user_id=USERS, recent=PAST, **COMMON), st.data())
def test_a_damaged_record_is_refused_or_read_as_the_reference_reads_it(state, data):
    """It neither ends the reader nor touches other users, and one that was there before stays as it was."""
    tables, others = empty_tables(), empty_tables()
    before = msgspec.structs.replace(state, impressions=77)
    neighbour = msgspec.structs.replace(state, user_id="neighbour")
    damaged = bytearray(pack_state(state))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    value = bytes(damaged[: data.draw(st.sampled_from([len(damaged), len(damaged) - 8, len(damaged) - 3]))])
    READER.apply(tables, [record(before, packed=True)])

    damaged_record = Record(TOPICS.user_states, 0, 0, state.user_id.encode(), value, PACKED_HEADERS)
    applied = READER.apply(tables, [record(neighbour, packed=True), damaged_record])

    assert sum(applied.taken.values()) + sum(applied.refused.values()) == 2
    if applied.refused[TOPICS.user_states]:
        expected = before
    else:
        try:
            expected = StateDecoder(UserState).decode(value, PACKED_HEADERS)
        except MalformedRecord:
            return  # wrong in a part that a worker does not read: an id of an event, or of an item known by its hash
    for one in (before, neighbour, expected):
        READER.apply(others, [record(one)])
    row, other = tables.users.ids.row(state.user_id), others.users.ids.row(state.user_id)
    assert tables.users.counts[row].tolist() == others.users.counts[other].tolist()
    assert tables.users.embeddings[row].tolist() == others.users.embeddings[other].tolist()
    histories = [
        [(of.items.ids.id_of(entry >> 1), entry & 1) for entry in of.users.histories.of(at)[0].tolist()]
        for of, at in ((tables, row), (others, other))
    ]
    assert histories[0] == histories[1]
    assert len(tables.users.ids) == 2
    READER.apply(tables, [record(before)])  # what was taken can be replaced
    assert tables.users.counts[row, 0] == 77


def test_of_two_records_of_one_id_the_readable_one_counts():
    """A later one that cannot be used leaves the earlier one of the same batch in place."""
    state = UserState(
        user_id="u", embedding=None, recent=[], impressions=5, positives=1, last_event_time_ms=0, published_time_ms=0
    )
    bad = [Record(TOPICS.user_states, 0, offset, b"u", b"no state", PACKED_HEADERS) for offset in (1, 2)]
    tables = empty_tables()

    applied = READER.apply(tables, [record(state, packed=True), *bad])

    assert tables.users.counts[tables.users.ids.row("u"), 0] == 5
    assert (applied.taken[TOPICS.user_states], applied.refused[TOPICS.user_states]) == (1, 2)


def test_any_outcome_but_zero_is_a_click():
    """A history refers to items by their rows: no byte of a record may shift them."""
    value = bytearray(
        pack_state(user_of("u", PastInteraction(item_id="i1", event_time_ms=0, positive=True, event_id="e")))
    )
    assert value[88] == 1
    value[88] = 255
    tables = empty_tables()

    READER.apply(tables, [Record(TOPICS.user_states, 0, 0, b"u", bytes(value), PACKED_HEADERS)])

    entries, _ = tables.users.histories.of(tables.users.ids.row("u"))
    assert entries.tolist() == [2 * tables.items.ids.row("i1") + 1]


def test_states_that_are_refused_teach_nothing():
    """Neither outcomes nor news are taken from them."""
    value = pack_state(user_of("u"))
    records = [Record(TOPICS.user_states, 0, 0, key, value, PACKED_HEADERS) for key in (b"\xff", b"v", b"u")]

    applied = READER.apply(empty_tables(), records)

    assert [key for key, _ in applied.users] == [b"u"]
    assert applied.refused[TOPICS.user_states] == 2


@pytest.mark.parametrize("name", [b"\xff\xfe", b"caf\xe9"])
def test_an_id_that_is_no_text_is_refused(name):
    """It could never be asked for."""
    state = user_of("x" * len(name))
    value = pack_state(state).replace(b"x" * len(name), name)
    tables = empty_tables()

    applied = READER.apply(tables, [Record(TOPICS.user_states, 0, 0, name, value, PACKED_HEADERS)])

    assert applied.refused[TOPICS.user_states] == 1
    assert len(tables.users.ids) == 0


def test_an_item_under_another_hash_than_its_id_has_is_refused():
    """Another writer made it: the histories of all users would be about other items."""
    past = PastInteraction(item_id="i1", event_time_ms=0, positive=True, event_id="e")
    state = user_of("u", past)
    value = bytearray(pack_state(state))
    value[80] ^= 1
    tables = empty_tables()

    applied = READER.apply(tables, [Record(TOPICS.user_states, 0, 0, b"u", bytes(value), PACKED_HEADERS)])

    assert applied.refused[TOPICS.user_states] == 1
    assert len(tables.users.ids) == 0
