"""What is kept of a topic's letters while they are read."""

from __future__ import annotations

from collections import deque

from cli.dead_letters.listing import MOST_KINDS, Summary, kind_of
from runtime.dead_letters import Letter, Origin
from runtime.records import TopicPartition


def letter(offset: int, reason: str = "wrong") -> Letter:
    """A letter of the items."""
    return Letter(
        place=f"items.dead-letter[0]@{offset}",
        partition=0,
        origin=Origin(TopicPartition("items", 0), offset, 0),
        reason=reason,
        program="updater",
        time_ms=0,
        attempt=1,
        key=b"k",
        value=b"v",
        headers=(),
    )


def test_the_newest_letters_are_shown_and_all_are_counted():
    """However many there are, only the last few are kept."""
    summary = Summary(deque(maxlen=2))
    for offset in range(5):
        summary.add(letter(offset), replayed=offset == 4)

    lines = summary.lines("items")

    assert lines[0] == "items: 5 dead letters, 1 of them replayed"
    assert "3 earlier" in lines[1]
    assert [line.split()[0] for line in lines[2:4]] == ["items[0]@3", "items[0]@4"]
    assert lines[4:] == ["  by reason:", "         5  wrong"]


def test_reasons_that_differ_in_numbers_count_as_one_the_most_frequent_first():
    """The same fault in a thousand records is one line."""
    summary = Summary(deque(maxlen=1))
    for offset in range(3):
        summary.add(letter(offset, f"{offset * 1000} bytes, more than the 10 allowed"), replayed=False)
    summary.add(letter(3, "other"), replayed=False)
    assert summary.reasons.most_common() == [("N bytes, more than the N allowed", 3), ("other", 1)]
    assert kind_of("a\nb 12") == "a\\nb N"


def test_reasons_without_end_do_not_fill_the_memory():
    """Beyond the first few hundred kinds, new ones are counted together, known ones apart as before."""
    summary = Summary(deque(maxlen=1))
    for _ in range(2):
        for number in range(MOST_KINDS + 100):
            summary.add(letter(0, "x" * (number % 30) + chr(ord("à") + number)), replayed=False)
    assert len(summary.reasons) == MOST_KINDS + 1
    assert summary.reasons["other reasons"] == 200
    assert summary.reasons.total() == summary.letters


def test_a_topic_without_letters_says_so():
    """Records of others are told apart from none at all."""
    assert Summary(deque()).lines("items") == ["items: no dead letters"]
    assert "2 records there are no letters" in Summary(deque(), strangers=2).lines("items")[-1]
