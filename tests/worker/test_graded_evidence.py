"""What grades tell of a user and of candidates, compared with a reference that adds up in plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features import GRADED_FEATURES
from schemas.messages import Item, ItemState
from worker.graded_evidence import GradedPast, graded_evidence
from worker.state_store.rows import UNKNOWN_ROW
from worker.state_store.tables import Tables

DIM = 4
NAMES = [f"i{number}" for number in range(5)]
AUTHORS = st.sampled_from(["", "Ann", "Bob", "Cid"])
GRADE = st.integers(0, 255)
ITEMS = st.fixed_dictionaries({name: st.tuples(AUTHORS, st.lists(GRADE, max_size=9)) for name in NAMES})
HISTORY = st.lists(st.tuples(st.sampled_from(NAMES), GRADE), max_size=8)


def tables_of(text, items):
    """Tables of items with an author and the grades that they got."""
    tables = Tables(text, DIM)
    for name, (author, grades) in items.items():
        tables.put_item(Item(item_id=name, title=None, attributes={"author": author} if author else {}))
        counts = {"impressions": len(grades), "positives": 0, "grades": sum(grades)}
        times = {"last_event_time_ms": 0, "published_time_ms": 0}
        tables.put_item_state(ItemState(item_id=name, embedding=None, **counts, **times))
    return tables


def past_of(tables, history, counts):
    """As retrieval hands it over."""
    rows = np.array([tables.items.ids.row(name) for name, _ in history], np.int64)
    return GradedPast(rows, np.array([grade for _, grade in history], np.uint8), np.array(counts, np.int64))


def reference(items, history, counts, candidate):
    """The features of one candidate; None for one of whom nothing is known."""
    everything = [grade / 255 for _, grades in items.values() for grade in grades]
    mean = (1 + sum(everything)) / (2 + len(everything))

    def expected(grades, prior=mean):
        return (sum(grades) / 255 + 4 * prior) / (len(grades) + 4)

    surprises = [grade / 255 - expected(items[name][1]) for name, grade in history]
    bias = sum(surprises) / (len(surprises) + 3)
    fresh = [0.5 ** (age / 4) for age in reversed(range(len(history)))]
    recent = sum(w * s for w, s in zip(fresh, surprises, strict=True)) / (sum(fresh) + 3)
    own = [grade / 255 for _, grade in history]
    middle = sum(own) / max(1, len(own))
    spread = math.sqrt((sum((grade - middle) ** 2 for grade in own) + 3 * 0.25**2) / (len(own) + 3)) - 0.25
    user = [(counts[2] / 255 + 4 * mean) / (counts[0] + 4) - mean, bias, recent, spread]
    if candidate is None:
        return [*user, 0, 0, 0]
    author, grades = items[candidate]
    others = [g for name, (by, theirs) in items.items() if by == author and name != candidate for g in theirs]
    met = [s for (name, _), s in zip(history, surprises, strict=True) if author and items[name][0] == author]
    telling = 1 / math.log(math.e + len(others)) if author else 0
    attribute = expected(others) - mean if author and others else 0
    ours = telling * sum(s - bias for s in met) / (telling * len(met) + 0.5)
    return [*user, expected(grades, mean + attribute) - mean, attribute, ours]


@settings(max_examples=200)
@given(ITEMS, HISTORY, st.tuples(st.integers(0, 50), st.integers(0, 100)))
def test_as_the_reference(text, items, history, counted):
    """For every item and for one that is unknown, whatever the user's counts are."""
    tables = tables_of(text, items)
    counts = (counted[0], 0, counted[0] * counted[1] * 255 // 100)
    rows = np.array([UNKNOWN_ROW, *map(tables.items.ids.row, NAMES)], np.int64)
    found = graded_evidence(tables.items, rows, past_of(tables, history, counts))
    for candidate, features in zip([None, *NAMES], found, strict=True):
        assert features == pytest.approx(reference(items, history, counts, candidate), abs=1e-5)


def test_of_nobody_and_nothing_all_is_as_expected(text):
    """No surprise, no distance from the mean, the usual spread."""
    tables = Tables(text, DIM)
    (features,) = graded_evidence(tables.items, np.array([UNKNOWN_ROW]), GradedPast.unknown())
    assert features.tolist() == [0.0] * len(GRADED_FEATURES)


@pytest.mark.parametrize("count", [2**63 - 1, 2**40])
def test_counts_beyond_all_reason_stay_within_the_range_of_grades(text, count):
    """Sums of them may wrap around; features stay finite and within ±1."""
    tables = tables_of(text, {"a": ("Ann", []), "b": ("Ann", [])})
    for name in ("a", "b"):
        tables.items.set_counts(np.array([tables.items.ids.row(name)]), np.full((1, 3), count))
    past = past_of(tables, [("a", 255)], (count, count, count))
    features = graded_evidence(tables.items, np.array([0, 1]), past)
    assert np.isfinite(features).all()
    assert np.abs(features).max() <= 1
