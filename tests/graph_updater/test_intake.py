"""Records to batches: every one ends in exactly one part."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from updater_parts import NOW_MS, TOPICS, click, record

from graph_updater.intake import Intake
from runtime.clock import ManualClock
from runtime.foreign_keys import ForeignKeys
from runtime.records import Record
from schemas.codec import FORMAT_HEADER, VERSION_HEADER, encode
from schemas.messages import Item, ItemState

HOUR_MS = 3_600_000


@pytest.fixture
def intake():
    """An intake with an hour's lead and small records."""
    return Intake(TOPICS.items, max_bytes=200, max_event_lead_ms=HOUR_MS, clock=ManualClock(NOW_MS))


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
        (record(click("u", "i", event_time_ms=NOW_MS + 3_600_001)), "lies 3600 s ahead of its record's time"),
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


@pytest.mark.parametrize("timestamp_ms", [-1, NOW_MS * 2, 2**62])
@pytest.mark.parametrize("event_time_ms", [NOW_MS + HOUR_MS + 1, NOW_MS * 2])
def test_what_lies_ahead_of_our_clock_is_refused_whatever_its_record_says(intake, timestamp_ms, event_time_ms):
    """A record without a time, or with one as wrong as the event's, vouches for nothing."""
    batch = intake.read([record(click("u", "i", event_time_ms=event_time_ms), timestamp_ms=timestamp_ms)])

    ((_, reason),) = batch.rejects
    assert "ahead of our clock" in reason
    assert "updater.max_event_lead_ms" in reason


def test_a_record_a_little_ahead_of_our_clock_vouches_no_further_than_our_clock(intake):
    """Its clock may be ahead as the event's is; the leads do not add up."""
    events = [click("u", "i", event_time_ms=NOW_MS + lead) for lead in (HOUR_MS, HOUR_MS + 1)]

    batch = intake.read([record(event, timestamp_ms=NOW_MS + HOUR_MS // 2) for event in events])

    assert batch.interactions == events[:1]
    assert len(batch.rejects) == 1


def test_a_record_without_a_time_is_believed_up_to_our_clock(intake):
    """Where the broker gives no time, ours is what there is to compare with."""
    event = click("u", "i", event_time_ms=NOW_MS + HOUR_MS)

    assert intake.read([record(event, timestamp_ms=-1)]).interactions == [event]


def test_a_clock_that_is_set_back_refuses_nothing():
    """What was the present a moment ago does not become the future."""
    clock = ManualClock(NOW_MS)
    intake = Intake(TOPICS.items, max_bytes=200, max_event_lead_ms=0, clock=clock)
    event = click("u", "i")
    assert intake.read([record(event)]).interactions == [event]

    clock.jump_wall(-2 * HOUR_MS)

    assert intake.read([record(event)]).interactions == [event]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2 * NOW_MS), st.integers(-1, NOW_MS), st.integers(0, 10**12))
def test_a_record_with_a_time_has_the_same_verdict_whenever_it_is_read(event_time_ms, timestamp_ms, waited_ms):
    """The log read again years later gives the same state."""
    bad = record(click("u", "i", event_time_ms=event_time_ms), timestamp_ms=max(0, timestamp_ms))
    now, years_later = (
        Intake(TOPICS.items, max_bytes=200, max_event_lead_ms=HOUR_MS, clock=ManualClock(NOW_MS + waited))
        for waited in (0, waited_ms)
    )

    assert now.read([bad]).interactions == years_later.read([bad]).interactions


@pytest.mark.parametrize(("weight", "taken"), [(1e-40, False), (9.99e-7, False), (1e-6, True), (1e6, True)])
def test_weights_too_light_for_single_precision_are_refused(intake, weight, taken):
    """The reason says where weights begin and what to send instead."""
    batch = intake.read([record(click("u", "i", weight=weight))])

    assert len(batch.interactions) == taken
    assert len(batch.rejects) == (not taken)
    for _, reason in batch.rejects:
        assert "weights begin at 0.000001" in reason
        assert "`removal`" in reason


@pytest.mark.parametrize("key", [None, b"", b"other", b"I", b"\xff", b"i" * 10_000])
def test_an_item_under_another_key_than_its_id_is_refused(intake, key):
    """Compaction would keep it beside its successor; the reason says what to do."""
    batch = intake.read([Record(TOPICS.items, 0, 0, key, encode(Item(item_id="i")))])

    ((_, reason),) = batch.rejects
    assert batch.items == []
    assert "write the record again under its item id" in reason
    assert len(reason) < 300


@pytest.mark.parametrize("key", [None, b""])
def test_a_withdrawal_without_a_key_is_refused(intake, key):
    """It names no item."""
    batch = intake.read([Record(TOPICS.items, 0, 0, key, None)])

    assert batch.withdrawn_items == []
    assert "without a key" in batch.rejects[0].reason


def test_interactions_under_a_foreign_key_are_taken_in_counted_and_told_once():
    """Keys by user are a recommendation: the updater needs every interaction."""
    seen = []
    intake = Intake(
        TOPICS.items,
        max_bytes=200,
        max_event_lead_ms=0,
        clock=ManualClock(NOW_MS),
        foreign_keys=ForeignKeys("interactions", lambda: seen.append(1)),
    )
    good = record(click("u", "i"))
    foreign = [msgspec.structs.replace(good, key=key) for key in (None, b"i", b"u2")]

    with capture_logs() as logs:
        batch = intake.read([good, *foreign])

    assert len(batch.interactions) == 4
    assert len(seen) == 3
    assert len(logs) == 1


@settings(max_examples=300, deadline=None)
@given(
    topic=st.sampled_from([TOPICS.items, TOPICS.interactions]),
    key=st.none() | st.binary(max_size=9),
    value=st.none() | st.binary(max_size=60) | st.sampled_from([encode(click("u", "i")), encode(Item(item_id="i"))]),
    headers=st.lists(
        st.tuples(
            st.sampled_from([FORMAT_HEADER, VERSION_HEADER, "", "x"]),
            st.none() | st.binary(max_size=20) | st.sampled_from([b"application/json", b"1", b"application/json;;="]),
        ),
        max_size=4,
    ),
    timestamp_ms=st.integers(-(2**63), 2**63 - 1),
)
def test_any_record_ends_in_exactly_one_part(topic, key, value, headers, timestamp_ms):
    """Whatever bytes, key, headers and time it has, it is taken in or refused with a reason of moderate length."""
    intake = Intake(TOPICS.items, max_bytes=200, max_event_lead_ms=HOUR_MS, clock=ManualClock(NOW_MS))

    batch = intake.read([Record(topic, 0, 0, key, value, tuple(headers), timestamp_ms)])

    parts = (batch.interactions, batch.items, batch.withdrawn_items, batch.rejects)
    assert sum(map(len, parts)) == 1
    assert all(len(reason) < 400 for _, reason in batch.rejects)


@pytest.mark.parametrize("text", ["x" * 900_000, "\0" * 900_000, "<|im_start|>system [INST] </s>"])
def test_long_and_strange_titles_are_taken_in_whole(text):
    """Up to the size of a record; nothing in a title is a control token."""
    intake = Intake(TOPICS.items, max_bytes=1_000_000, max_event_lead_ms=0, clock=ManualClock(NOW_MS))
    item = Item(item_id="i", title=text)

    assert intake.read([record(item)]).items == [item]


@pytest.mark.parametrize("field", ["user_id", "item_id", "event_id"])
def test_ids_of_900_kilobytes_are_refused_shortly(field):
    """The reason does not repeat them."""
    intake = Intake(TOPICS.items, max_bytes=1_000_000, max_event_lead_ms=0, clock=ManualClock(NOW_MS))
    event = msgspec.structs.replace(click("u", "i"), **{field: "x" * 900_000})

    ((_, reason),) = intake.read([record(event)]).rejects

    assert "length <= 1024" in reason
    assert len(reason) < 200
