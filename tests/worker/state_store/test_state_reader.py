"""Records of the compacted topics, applied to the tables."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from programs.topics import TopicSettings
from runtime.records import Record
from schemas.codec import encode, headers_for
from schemas.embeddings import encode_embedding
from schemas.messages import Item
from worker.state_store.state_reader import StateReader

TOPICS = TopicSettings()
READER = StateReader(TOPICS, 100_000)


def _record(topic, key, message):
    return Record(topic, 0, 0, key.encode(), None if message is None else encode(message))


def test_each_topic_fills_its_table(tables, user_state, item_state):
    """And tells the event times that freshness is measured by."""
    applied = READER.apply(
        tables,
        [
            _record(TOPICS.items, "a", Item(item_id="a", title="red shoes")),
            _record(TOPICS.item_states, "a", item_state("a", [1, 0, 0, 0])),
            _record(TOPICS.user_states, "u", user_state("u", [1, 0, 0, 0], ["+a", "-b"])),
        ],
    )

    assert (len(tables.items.ids), len(tables.users.ids)) == (2, 1)
    assert sorted(applied.event_times_ms) == [0, 1]
    assert set(applied.taken.values()) == {1}
    assert set(applied.refused.values()) == {0}


def test_freshness_is_measured_by_what_is_news(tables, user_state):
    """A state that comes again because its embedding moved brings none; one with another interaction brings that."""
    states = [user_state("u", [1, 0, 0, 0], ["+a"]), user_state("u", [0, 1, 0, 0], ["+a"])]
    READER.apply(tables, [_record(TOPICS.user_states, "u", state) for state in states[:1]])

    again = READER.apply(tables, [_record(TOPICS.user_states, "u", states[1])])
    more = READER.apply(tables, [_record(TOPICS.user_states, "u", user_state("u", [1, 0, 0, 0], ["+a", "-b", "+c"]))])

    assert again.event_times_ms == []
    assert more.event_times_ms == [2]


def test_tombstones_forget(tables, user_state, item_state):
    """The latest record of a key counts, also when it says that there is none."""
    READER.apply(
        tables,
        [
            _record(TOPICS.items, "a", Item(item_id="a", title="red shoes")),
            _record(TOPICS.item_states, "a", item_state("a", [1, 0, 0, 0])),
            _record(TOPICS.user_states, "ü", user_state("ü", [1, 0, 0, 0], ["+a"])),
            _record(TOPICS.items, "a", None),
            _record(TOPICS.item_states, "a", None),
            _record(TOPICS.user_states, "ü", None),
            _record(TOPICS.user_states, "never seen", None),
        ],
    )

    row = tables.items.ids.row("a")
    assert (tables.users.ids.row("ü"), list(tables.items.titles[row]), tables.items.embedded[row]) == (-1, [], False)


def test_what_cannot_be_used_is_counted_and_changes_nothing(tables, user_state):
    """Undecodable bytes, a message of another kind, another bundle's embedding, a key that is no text."""
    good = user_state("u", [1, 0, 0, 0], ["+a"])
    other = encode_embedding(np.ones(9, np.float32), "float32", 1)
    applied = READER.apply(
        tables,
        [
            _record(TOPICS.user_states, "u", good),
            Record(TOPICS.user_states, 0, 1, b"u", b"\xc1"),
            _record(TOPICS.user_states, "u", Item(item_id="u")),
            _record(TOPICS.user_states, "u", msgspec.structs.replace(good, embedding=other, impressions=9)),
            Record(TOPICS.user_states, 0, 1, b"\xff", None),
            Record(TOPICS.user_states, 0, 1, None, b"x" * 200_000),
        ],
    )

    assert applied.refused[TOPICS.user_states] == 5
    assert tables.users.counts[tables.users.ids.row("u")].tolist() == [1, 1, 255]


@pytest.mark.parametrize("field", ["impressions", "positives", "grades"])
def test_numbers_beyond_64_bits_are_refused_and_change_nothing(tables, user_state, item_state, field):
    """A JSON number can be of any size; the state of before stays, and the reader goes on."""
    user, item = user_state("u", [1, 0, 0, 0], ["+a"]), item_state("a", [1, 0, 0, 0])
    READER.apply(tables, [_record(TOPICS.user_states, "u", user), _record(TOPICS.item_states, "a", item)])
    before = tables.users.embeddings.copy(), tables.users.counts.copy(), tables.items.embeddings.copy()
    huge = [
        Record(
            topic,
            0,
            0,
            key,
            encode(state, "json").replace(b'"%s":' % field.encode(), b'"%s":%d,"was":' % (field.encode(), 2**63)),
            tuple(headers_for("json")),
        )
        for topic, key, state in (
            (TOPICS.user_states, b"u", user_state("u", [0, 1, 0, 0], ["+a"])),
            (TOPICS.item_states, b"a", item_state("a", [0, 1, 0, 0])),
        )
    ]
    with capture_logs() as logs:
        applied = READER.apply(tables, huge)
    assert ["beyond 64 bits" in line["reason"] for line in logs] == [True, True]
    assert (applied.refused[TOPICS.user_states], applied.refused[TOPICS.item_states]) == (1, 1)
    for array, now in zip(before, (tables.users.embeddings, tables.users.counts, tables.items.embeddings), strict=True):
        np.testing.assert_array_equal(now, array)


def _json(state, **numbers):
    """A user state as JSON with numbers of any size in place of its own."""
    plain = msgspec.to_builtins(state)
    plain["embedding"]["version"] = numbers.pop("version", 1)
    return Record(TOPICS.user_states, 0, 0, b"u", msgspec.json.encode(plain | numbers), tuple(headers_for("json")))


@pytest.mark.parametrize(
    "numbers",
    [
        {"version": 2**63},
        {"version": 2**64},
        {"impressions": 2**63},
        {"positives": 2**64 - 1},
        {"grades": 2**63},
        {"impressions": -1},
        {"last_event_time_ms": 253_402_300_800_000},
        {"last_event_time_ms": 2**63},
        {"published_time_ms": 2**64},
    ],
    ids=str,
)
def test_a_hostile_number_is_refused_counted_and_leaves_the_previous_state(tables, user_state, numbers):
    """The record stays in the compacted topic: it must be survived at every start."""
    good = user_state("u", [1, 0, 0, 0], ["+a"])
    READER.apply(tables, [_json(good)])
    row = tables.users.ids.row("u")
    before = tables.users.embeddings[row].copy(), tables.users.counts[row].copy(), tables.users.versions[row]

    with capture_logs() as logs:
        applied = READER.apply(tables, [_json(user_state("u", [0, 1, 0, 0], ["+a", "-b"]), **numbers)])

    assert applied.refused[TOPICS.user_states] == 1
    assert applied.event_times_ms == []
    assert len(logs[0]["reason"]) < 300
    np.testing.assert_array_equal(tables.users.embeddings[row], before[0])
    np.testing.assert_array_equal(tables.users.counts[row], before[1])
    assert tables.users.versions[row] == before[2]


def test_numbers_at_the_ends_of_their_ranges_are_taken(tables, user_state):
    """The largest that 64 bits hold, a time in the year 9999, zero with a sign and as a float."""
    numbers = {"version": 2**63 - 1, "impressions": 2**63 - 1, "last_event_time_ms": 253_402_300_799_999}

    applied = READER.apply(tables, [_json(user_state("u", [1, 0, 0, 0], ["+a"]), positives=-0.0, **numbers)])

    row = tables.users.ids.row("u")
    assert applied.taken[TOPICS.user_states] == 1
    assert tables.users.counts[row].tolist() == [2**63 - 1, 0, 0]
    assert tables.users.versions[row] == 2**63 - 1


@pytest.mark.parametrize("key", [None, b"", b"other", b"\xff"])
def test_a_record_under_another_key_than_its_id_is_refused(tables, user_state, item_state, key):
    """Compaction goes by the key: it would outlive what replaces it."""
    messages = {
        TOPICS.items: Item(item_id="a", title="red shoes"),
        TOPICS.item_states: item_state("a", [1, 0, 0, 0]),
        TOPICS.user_states: user_state("u", [1, 0, 0, 0], ["+a"]),
    }

    applied = READER.apply(tables, [Record(topic, 0, 0, key, encode(message)) for topic, message in messages.items()])

    assert applied.refused == dict.fromkeys(messages, 1)
    assert (len(tables.items.ids), len(tables.users.ids)) == (0, 0)


@pytest.mark.parametrize("key", [None, b"", b"\xff"])
def test_a_removal_without_an_id_is_refused(tables, key):
    """It removes nothing, which somebody should know."""
    applied = READER.apply(tables, [Record(topic, 0, 0, key, None) for topic in READER.topics])

    assert applied.refused == dict.fromkeys(READER.topics, 1)
