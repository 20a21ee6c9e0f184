"""What `check-data` finds is what is there."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_data.own.findings import find
from event_data.own.reader import OwnData

T0_MS = 1_700_000_000_000


def lines_of(folder):
    """The findings as text."""
    return "\n".join(find(OwnData(folder)).lines())


def write(folder, events, items=()):
    """A folder of JSON lines."""
    (folder / "interactions.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if items:
        (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


def event(number, **change):
    """One of many: every third is a click."""
    return {
        "user_id": f"u{number % 50}",
        "item_id": f"i{number % 7}",
        "ts": T0_MS + number,
        "clicked": number % 3 == 0,
    } | change


def test_a_sound_folder_is_counted_and_has_no_problems(tmp_path):
    """Counts, span, click rate, share of items without text, items that the catalogue lacks."""
    write(tmp_path, map(event, range(1_200)), [{"item_id": "i0", "title": "x"}, {"item_id": "i1"}])
    findings = find(OwnData(tmp_path))
    assert (findings.events, findings.users, findings.items, findings.clicks) == (1_200, 50, 7, 400)
    assert (findings.catalogue, findings.without_text, findings.unlisted) == (2, 1, 5)
    assert (findings.first_ms, findings.last_ms) == (T0_MS, T0_MS + 1_199)
    assert not findings.problems
    text = lines_of(tmp_path)
    for said in ("33.3% of them are clicks (where `clicked` is true)", "5 items were interacted with", "2023-11-14"):
        assert said in text


def test_repetitions_are_counted(tmp_path):
    """Events of one id, and events that are alike but for their ids."""
    events = [event(0, event_id="a"), event(0, event_id="b"), event(1, event_id="b")]
    write(tmp_path, events)
    findings = find(OwnData(tmp_path))
    assert (findings.repeated_ids, findings.repeated_rows) == (1, 1)


@given(rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))))
def test_repeated_rows_are_what_a_set_says(tmp_path_factory, rows):
    """However they are mixed."""
    folder = tmp_path_factory.mktemp("data")
    write(folder, [event(0, user_id=f"{u}", item_id=f"{i}", ts=T0_MS + t) for u, i, t in rows] or [event(0)])
    assert find(OwnData(folder)).repeated_rows == max(0, len(rows) - len(set(rows)))


def test_what_would_be_skipped_is_told_by_reason(tmp_path):
    """With how often, the most frequent first, and the first row of each."""
    write(tmp_path, [event(0), event(1, ts="soon"), event(2, user_id=None), event(3, ts="later")])
    text = lines_of(tmp_path)
    assert "2 rows of interactions would be skipped: `ts` is no time" in text
    assert "interactions.jsonl line 2" in text
    assert text.index("`ts` is no time") < text.index("`user_id` is empty")


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([event(number) for number in range(36)], "36 interactions are too few"),
        ([event(number, clicked=1) for number in range(1_000)], "every interaction is a click"),
        ([event(number, clicked=0) for number in range(1_000)], "no interaction is a click"),
        (
            [event(number, clicked=number % 2 * (number < 900)) for number in range(1_000)],
            "the last 10 % (to evaluate on): 0",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_told_before_anyone_waits_for_it(tmp_path, events, said):
    """Too few, all alike, or a part in time that is all alike."""
    write(tmp_path, events)
    (problem, *_) = find(OwnData(tmp_path)).problems
    assert said in problem
