"""Records to batches: every one ends in exactly one part."""

from __future__ import annotations

import pytest
from updater_parts import NOW_MS, TOPICS, click, record

from graph_updater.intake import Intake
from runtime.records import Record
from schemas.codec import encode
from schemas.messages import Item, ItemState


@pytest.fixture
def intake():
    """An intake with an hour's lead and small records."""
    return Intake(TOPICS.items, max_bytes=200, max_event_lead_ms=3_600_000)


def test_interactions_and_items_are_told_apart_by_topic(intake):
    """Order of arrival is kept within each kind."""
    clicks = [click("u", "i", number) for number in range(3)]
    item = Item(item_id="i", title="A title")

    batch = intake.read([record(clicks[0]), record(item), record(clicks[1], 1), record(clicks[2], 2)])

    assert batch.interactions == clicks
    assert batch.items == [item]
    assert batch.rejects == []


def test_an_empty_value_withdraws_an_item(intake):
    """A tombstone under an item's id says that it has left the catalogue."""
    batch = intake.read([Record(TOPICS.items, 0, 0, "Amélie".encode(), None)])

    assert batch.withdrawn_items == ["Amélie"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (record(b"\xc1"), "not a valid Interaction"),
        (record(None), "empty value"),
        (record(b"x" * 201), "201 bytes, more than the 200 allowed"),
        (record(click("u", "i", event_time_ms=NOW_MS + 3_600_001)), "lies 3600 s after the record was written"),
        (Record(TOPICS.items, 0, 0, b"\xff", None), "no item id"),
        (Record(TOPICS.items, 0, 0, b"k", encode(click("u", "i"))), "not a valid Item"),
        (
            Record(
                TOPICS.items,
                0,
                0,
                b"k",
                encode(
                    ItemState(
                        item_id="i",
                        embedding=None,
                        impressions=0,
                        positives=0,
                        last_event_time_ms=0,
                        published_time_ms=0,
                    )
                ),
            ),
            "not a valid Item",
        ),
    ],
)
def test_what_cannot_be_taken_in_is_rejected_with_the_reason(intake, bad, said):
    """Nothing is dropped: the record itself comes back with words that say what is wrong with it."""
    good = record(click("u", "i"), 1)

    batch = intake.read([bad, good])

    ((rejected, reason),) = batch.rejects
    assert rejected is bad
    assert said in reason
    assert len(batch.interactions) == 1


def test_events_of_the_past_and_of_the_near_future_are_taken_in(intake):
    """A log is replayed years later, and clocks differ by minutes: neither is an error."""
    events = [click("u", "i", event_time_ms=0), click("u", "i", event_time_ms=NOW_MS + 3_600_000)]

    assert intake.read(map(record, events)).interactions == events


def test_a_record_without_a_time_of_its_own_is_believed(intake):
    """Where the broker gives no time there is nothing to compare with."""
    event = click("u", "i", event_time_ms=NOW_MS * 2)

    assert intake.read([record(event, timestamp_ms=-1)]).interactions == [event]
