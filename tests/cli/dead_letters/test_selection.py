"""Which letters a command is about."""

from __future__ import annotations

import pytest

from cli.dead_letters.selection import BadSelection, Selection, inputs_of, inputs_of_places, since
from programs.topics import TopicSettings
from runtime.dead_letters import Letter, Origin
from runtime.records import TopicPartition

TOPICS = TopicSettings()
LETTER = Letter(
    place="items.dead-letter[0]@5",
    partition=0,
    origin=Origin(TopicPartition("items", 2), 17, 900),
    reason="not a valid Item: Expected `str`",
    program="updater",
    time_ms=1_000,
    attempt=1,
    key=b"k",
    value=b"v",
    headers=(),
)


@pytest.mark.parametrize(
    ("selection", "holds"),
    [
        (Selection(), True),
        (Selection(places=frozenset({"items[2]@17", "items[2]@18"})), True),
        (Selection(places=frozenset({"items.dead-letter[0]@5"})), True),
        (Selection(places=frozenset({"items[2]@18"})), False),
        (Selection(reason="NOT A valid item"), True),
        (Selection(reason="candidates"), False),
        (Selection(since_ms=1_000), True),
        (Selection(since_ms=1_001), False),
        (Selection(places=frozenset({"items[2]@17"}), reason="candidates"), False),
    ],
)
def test_a_letter_is_selected_by_its_records_place_its_own_its_reason_and_its_time(selection, holds):
    """Every condition that is given must hold; without any, all letters are selected."""
    assert selection.holds(LETTER) is holds


def test_topics_are_those_named_or_all_inputs():
    """An output, or a name that does not exist, is refused with the names that do."""
    assert inputs_of(TOPICS, []) == TOPICS.inputs
    assert inputs_of(TOPICS, ["items"]) == ("items",)
    with pytest.raises(BadSelection, match=r"ctr-scores is no input topic.*interactions"):
        inputs_of(TOPICS, ["items", "ctr-scores"])


def test_a_place_tells_its_input_topic():
    """As the place of a record and as that of a letter; also where a topic's name looks like a place."""
    places = ["items[0]@1", "items.dead-letter[0]@1", "interactions[3]@9"]
    assert inputs_of_places(TOPICS, places) == ("interactions", "items")
    odd = TopicSettings(items="a[1]@2")
    assert inputs_of_places(odd, ["a[1]@2[0]@3"]) == ("a[1]@2",)


@pytest.mark.parametrize("place", ["items", "items[0]", "items@1", "items[x]@1", "items[0]@-1", "[0]@1", "other[0]@1"])
def test_what_is_no_place_is_refused(place):
    """The error quotes it and says how places are written, or which topics there are."""
    with pytest.raises(BadSelection, match=r"topic\[partition\]@offset|interactions"):
        inputs_of_places(TOPICS, [place])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("90s", 10_000_000 - 90_000),
        ("30m", 10_000_000 - 1_800_000),
        ("2h", 10_000_000 - 7_200_000),
        ("7d", 10_000_000 - 604_800_000),
        ("1970-01-02", 86_400_000),
        ("1970-01-01T00:01", 60_000),
        ("1970-01-01T01:00+01:00", 0),
    ],
)
def test_a_time_is_an_age_or_a_date(text, expected):
    """Ages count back from now; a date without an offset is UTC."""
    assert since(text, 10_000_000) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "5", "5w", "-1h", "2026-13-01"])
def test_what_is_no_time_is_refused(text):
    """The error quotes it and shows both forms."""
    with pytest.raises(BadSelection, match="2h"):
        since(text, 0)
