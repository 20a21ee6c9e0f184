"""Tables as arrays and back, while they change."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from table_model import BATCHES, PARTITIONS, READER, TableModel, check, empty_tables, last_of_each, record, user_of

from schemas.messages import ItemState, PastInteraction, UserState
from worker.state_store import table_copy
from worker.state_store.table_copy import copy_steps, restore
from worker.steps import to_its_end


def _apply(tables, model, batch):
    READER.apply(tables, [record(change) for change in batch])
    for change in last_of_each(batch):
        model.apply(change)


@settings(max_examples=150, deadline=None)
@given(BATCHES, BATCHES, st.integers(1, 3))
def test_a_copy_with_what_came_since_its_beginning_is_the_table(before, meanwhile, rows_at_once):
    """Whatever changes between two slices, rows of users and items given up and used again among it."""
    tables, model = empty_tables(), TableModel()
    for batch in before:
        _apply(tables, model, batch)
    usual, table_copy._ROWS_AT_ONCE = table_copy._ROWS_AT_ONCE, rows_at_once
    try:
        steps, later = copy_steps(tables), iter(meanwhile)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                arrays = end.value.joined()
                break
            _apply(tables, model, next(later, []))
        for batch in later:
            _apply(tables, model, batch)
    finally:
        table_copy._ROWS_AT_ONCE = usual
    check(tables, model)

    restored = empty_tables()
    restore(restored, arrays, range(PARTITIONS))
    for batch in meanwhile:
        READER.apply(restored, [record(change) for change in batch])

    check(restored, model)
    restored.refresh_indexes()
    tables.refresh_indexes()
    assert len(restored.user_index) == len(tables.user_index)
    assert len(restored.item_index) == len(tables.item_index)


def test_an_item_that_left_after_the_user_who_met_it_was_copied():
    """The copy has the user but not the item; the user's removal is read again."""
    past = PastInteraction(item_id="met once", event_time_ms=0, positive=True, event_id="e")
    state = user_of("u", past)
    tables, restored = empty_tables(), empty_tables()
    READER.apply(tables, [record(state)])
    steps = copy_steps(tables)
    next(steps)
    removal = record((UserState, "u"))
    READER.apply(tables, [removal])

    restore(restored, to_its_end(steps).joined(), range(PARTITIONS))
    assert restored.users.histories.lengths[restored.users.ids.row("u")] == 0
    READER.apply(restored, [removal])

    assert (len(restored.users.ids), len(restored.items.ids)) == (0, 0)


def test_an_item_that_is_in_a_copy_twice_counts_once():
    """It left after its slice and came back in a later row."""

    def shown(name, impressions):
        return ItemState(
            item_id=name,
            embedding=None,
            impressions=impressions,
            positives=0,
            last_event_time_ms=0,
            published_time_ms=0,
        )

    usual, table_copy._ROWS_AT_ONCE = table_copy._ROWS_AT_ONCE, 1
    try:
        tables, restored = empty_tables(), empty_tables()
        READER.apply(tables, [record(shown("a", 20)), record(shown("b", 3))])
        steps = copy_steps(tables)
        next(steps)
        changes = [[record((ItemState, "a")), record(shown("c", 1))], [record(shown("a", 30))]]
        for change in changes:
            READER.apply(tables, change)
        arrays = to_its_end(steps).joined()
    finally:
        table_copy._ROWS_AT_ONCE = usual

    restore(restored, arrays, range(PARTITIONS))
    for change in changes:
        READER.apply(restored, change)

    assert sorted(arrays["item_counts"][:, 0].tolist()) == [1, 3, 20, 30]
    assert restored.items.totals.tolist() == tables.items.totals.tolist()


@given(BATCHES)
def test_texts_and_what_items_share_come_back(batches):
    """Titles, the values of attributes with their counts, the words."""
    tables, model = empty_tables(), TableModel()
    for batch in batches:
        _apply(tables, model, batch)
    restored = empty_tables()

    restore(restored, to_its_end(copy_steps(tables)).joined(), range(PARTITIONS))

    for name in model.items():
        ours, theirs = tables.items.ids.row(name), restored.items.ids.row(name)
        assert list(tables.items.titles[ours]) == list(restored.items.titles[theirs])
        for kind in ("attributes", "title_words"):
            assert _values(getattr(tables.items, kind), ours) == _values(getattr(restored.items, kind), theirs)


def _values(shared, row):
    """Of an item, each value with its counts."""
    return {
        shared.name_of(value): shared.counts[value].tolist() for value in shared.of_items[row].tolist() if value >= 0
    }
