"""What a value in a row means, and why it cannot be used."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_data.own.description import InteractionColumns
from event_data.own.rows import EARLIEST_MS, interaction_of, time_ms
from event_data.ratings import Scale

NOON_MS = 1_709_294_400_000
LATEST_MS = 1_800_000_000_000
COLUMNS = InteractionColumns("u", "i", "t", positive="c")
ROW = {"u": "ann", "i": 7, "t": NOON_MS, "c": 1}


@pytest.mark.parametrize(
    "value",
    [
        *(NOON_MS // 1_000, NOON_MS, NOON_MS * 1_000, NOON_MS * 1_000_000, NOON_MS / 1_000),
        *("1709294400", "1709294400.0", str(NOON_MS), "2024-03-01T12:00:00Z", "2024-03-01 12:00:00"),
        *("2024-03-01T14:00:00+02:00", datetime(2024, 3, 1, 12, tzinfo=UTC)),
        *(datetime(2024, 3, 1, 14, tzinfo=timezone(timedelta(hours=2))), datetime(2024, 3, 1, 12)),  # noqa: DTZ001
    ],
)
def test_every_usual_way_to_write_a_moment_is_read(value):
    """Seconds to nanoseconds, as numbers or text; ISO 8601; dates and times; without a zone they are UTC."""
    assert time_ms(value, "t", LATEST_MS) == NOON_MS


def test_a_date_is_its_first_moment():
    """Midnight in UTC."""
    assert time_ms(date(2024, 3, 1), "t", LATEST_MS) == NOON_MS - 12 * 3_600_000
    assert time_ms("2024-03-01", "t", LATEST_MS) == NOON_MS - 12 * 3_600_000


@given(st.integers(EARLIEST_MS, LATEST_MS), st.sampled_from([1_000, 1_000_000]))
def test_units_are_never_mistaken_for_one_another(moment_ms, factor):
    """Any moment since 1990 means itself in ms, µs and ns."""
    assert time_ms(moment_ms * factor, "t", LATEST_MS) == time_ms(moment_ms, "t", LATEST_MS) == moment_ms


@pytest.mark.parametrize(
    ("value", "said"),
    [
        *((None, "is empty"), ("", "is empty"), ("soon", "is no time"), (True, "is no time"), ([1], "is no time")),
        *((0, "before 1990"), (-5, "before 1990"), (12, "before 1990"), ("1899-01-01", "before 1990")),
        *((LATEST_MS + 1_000, "in the future"), ("2190-01-01", "in the future"), (float("nan"), "is no time")),
    ],
)
def test_what_is_no_moment_is_said_to_be_none(value, said):
    """Empty, no time at all, or not in the years that data is from."""
    with pytest.raises(ValueError, match=said):
        time_ms(value, "t", LATEST_MS)


@pytest.mark.parametrize("value", [1, True, "1", "TRUE", "yes", 1.0, "t"])
def test_every_usual_yes_is_a_click(value):
    """And what was shown without a click is an impression."""
    event = interaction_of(ROW | {"c": value}, COLUMNS, "e", LATEST_MS)
    assert (event.kind, event.positive) == ("click", True)
    event = interaction_of(ROW | {"c": 0}, COLUMNS, "e", LATEST_MS)
    assert (event.kind, event.positive) == ("impression", False)


def test_kinds_that_are_listed_are_clicks():
    """A kind that the messages do not know is `other`; whether it counts is the description's."""
    columns = InteractionColumns("u", "i", "t", kind="c", positive_kinds=("click", "wishlist"))
    read = [interaction_of(ROW | {"c": kind}, columns, "e", LATEST_MS) for kind in ("click", "wishlist", "view")]
    assert [(event.kind, event.positive) for event in read] == [("click", True), ("other", True), ("view", False)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *(({"u": None}, "`u` is empty"), ({"i": ""}, "`i` is empty"), ({"u": "x" * 1_025}, "`u` is longer than 1024")),
        *(({"c": None}, "`c` is empty"), ({"c": "maybe"}, "`c` is neither true nor false")),
    ],
)
def test_a_row_that_lacks_something_says_what(change, said):
    """The column and the fault, without the value: alike rows are counted together."""
    with pytest.raises(ValueError, match=said):
        interaction_of(ROW | change, COLUMNS, "e", LATEST_MS)


def test_whole_numbers_beside_missing_values_stay_ids():
    """Pandas turns a column of integers into floats when one is missing."""
    assert interaction_of(ROW | {"i": 7.0}, COLUMNS, "e", LATEST_MS).item_id == "7"


def test_a_rating_tells_how_good_it_was_where_its_scale_is_known():
    """Its place between the lowest and the highest; without a scale only the click is known."""
    columns = InteractionColumns("u", "i", "t", rating="c", positive_at=4, rating_scale=Scale(1, 5))
    read = [interaction_of(ROW | {"c": stars}, columns, "e", LATEST_MS) for stars in (1, "4", 9)]
    assert [(event.positive, event.grade) for event in read] == [(False, 0.0), (True, 0.75), (True, 1.0)]
    assert interaction_of(ROW | {"c": 4}, replace(columns, rating_scale=None), "e", LATEST_MS).grade is None


@pytest.mark.parametrize(("value", "grade"), [(0.25, 0.25), ("1", 1.0), ("", None), (None, None)])
def test_a_column_of_grades_may_have_gaps(value, grade):
    """There the click alone counts."""
    columns = InteractionColumns("u", "i", "t", positive="c", grade="g")
    assert interaction_of(ROW | {"g": value}, columns, "e", LATEST_MS).grade == grade


@pytest.mark.parametrize(("value", "said"), [(1.5, "outside 0 to 1"), (-0.1, "outside"), ("good", "no number")])
def test_grades_out_of_bounds_are_refused(value, said):
    """Per cent are none."""
    with pytest.raises(ValueError, match=said):
        interaction_of(ROW | {"g": value}, InteractionColumns("u", "i", "t", positive="c", grade="g"), "e", LATEST_MS)


@pytest.mark.parametrize(("value", "said"), [(0, "outside"), (-1, "outside"), ("x", "no number"), (2e6, "outside")])
def test_weights_out_of_bounds_are_refused(value, said):
    """Those that the messages would not carry."""
    with pytest.raises(ValueError, match=said):
        interaction_of(ROW | {"w": value}, InteractionColumns("u", "i", "t", positive="c", weight="w"), "e", LATEST_MS)
