"""What grades tell of a user and of candidates, compared with a reference that adds up in plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features import GRADED_FEATURES
from schemas.embeddings import encode_embedding
from schemas.messages import Item, ItemState
from worker.graded_evidence import GradedPast, graded_evidence
from worker.state_store.rows import UNKNOWN_ROW
from worker.state_store.tables import Tables

DIM = 4
NAMES = [f"i{number}" for number in range(5)]
AUTHORS = st.sampled_from(["", "Ann", "Bob", "Cid"])
GRADE = st.integers(0, 255)
TITLES = st.sampled_from(["", "Red Sea", "Red Sea: a story", "red sea (paperback)", "Sea Story", "It"])
VECTORS = st.one_of(st.none(), st.lists(st.integers(-2, 2), min_size=DIM, max_size=DIM))
ITEMS = st.fixed_dictionaries(
    {name: st.tuples(AUTHORS, st.lists(GRADE, max_size=9), TITLES, VECTORS) for name in NAMES}
)
HEADS = {
    "Red Sea": "red sea",
    "Red Sea: a story": "red sea",
    "red sea (paperback)": "red sea",
    "Sea Story": "sea story",
}
HEADS |= {"It": "it", "": None}
HISTORY = st.lists(st.tuples(st.sampled_from(NAMES), GRADE), max_size=8)


def tables_of(text, items):
    """Tables of items with an author, the grades that they got, a title and an embedding."""
    tables = Tables(text, DIM)
    for name, (author, grades, title, vector) in items.items():
        tables.put_item(Item(item_id=name, title=title or None, attributes={"author": author} if author else {}))
        counts = {"impressions": len(grades), "positives": 0, "grades": sum(grades)}
        times = {"last_event_time_ms": 0, "published_time_ms": 0}
        embedding = None if vector is None else encode_embedding(np.array(vector, np.float32), "float32", 1)
        tables.put_item_state(ItemState(item_id=name, embedding=embedding, **counts, **times))
    return tables


def past_of(tables, history, counts):
    """As retrieval hands it over."""
    rows = np.array([tables.items.ids.row(name) for name, _ in history], np.int64)
    return GradedPast(rows, np.array([grade for _, grade in history], np.uint8), np.array(counts, np.int64))


def reference(items, history, counts, candidate):
    """The features of one candidate; None for one of whom nothing is known."""
    everything = [grade / 255 for _, grades, *_ in items.values() for grade in grades]
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
        return [*user, 0, 0, 0, 0, 0, 0, 0]
    author, grades, title, _ = items[candidate]
    others = [g for name, (by, theirs, *_) in items.items() if by == author and name != candidate for g in theirs]
    met = [s for (name, _), s in zip(history, surprises, strict=True) if author and items[name][0] == author]
    telling = 1 / math.log(math.e + len(others)) if author else 0
    attribute = expected(others) - mean if author and others else 0
    ours = telling * sum(s - bias for s in met) / (telling * len(met) + 0.5)
    known = [*user, expected(grades, mean + attribute) - mean, attribute, ours]
    head = HEADS[title]
    editions = [g for _, theirs, other, _ in items.values() if HEADS[other] == head for g in theirs] if head else grades
    past = [name for name, _ in history]
    return [
        *known,
        expected(editions, mean + attribute) - mean,
        math.log1p(len(editions) - len(grades)),
        regression(items, past, surprises, candidate),
        weighted_by_cosine(items, past, surprises, candidate),
    ]


def regression(items, past, surprises, candidate):
    """The mean of a Gaussian process at the candidate, by the inverse of the covariance written out."""

    def telling(values_of, value):
        return 1 / math.log(math.e + sum(len(one[1]) for one in items.values() if value in values_of(one)))

    def cosine(values_of, one, other):
        ours, theirs = ({value: telling(values_of, value) for value in values_of(items[it])} for it in (one, other))
        lengths = [math.sqrt(sum(weight**2 for weight in weights.values())) for weights in (ours, theirs)]
        return sum(ours[value] ** 2 for value in ours.keys() & theirs.keys()) / ((math.prod(lengths)) or 1)

    def covariance(one, other):
        return 0.5 + 0.2 * cosine(lambda it: {it[0]} - {""}, one, other) + 0.2 * cosine(words, one, other)

    inner = np.array([[covariance(one, other) for other in past] for one in past]).reshape(len(past), len(past))
    at_candidate = np.array([covariance(candidate, one) for one in past])
    return float(at_candidate @ np.linalg.inv(inner + np.eye(len(past))) @ np.array(surprises)) if past else 0.0


def words(item):
    """Of three letters and more."""
    return {word for word in item[2].lower().replace("(", " ").replace(")", " ").replace(":", " ").split() if word[2:]}


def weighted_by_cosine(items, past, surprises, candidate):
    """By the fourth power of the cosine of embeddings, where it is positive and both have one."""
    total = weight_sum = 0.0
    for name, surprise in zip(past, surprises, strict=True):
        ours, theirs = (np.array(items[one][3] or [0] * DIM, float) for one in (candidate, name))
        length = np.linalg.norm(ours) * np.linalg.norm(theirs)
        weight = max(ours @ theirs / length, 0) ** 4 if length else 0.0
        total, weight_sum = total + weight * surprise, weight_sum + weight
    return total / (weight_sum + 0.5)


@settings(max_examples=100, deadline=None)
@given(ITEMS, HISTORY, st.tuples(st.integers(0, 50), st.integers(0, 100)))
def test_as_the_reference(text, items, history, counted):
    """For every item and for one that is unknown, together and alone, whatever the user's counts are."""
    tables = tables_of(text, items)
    counts = (counted[0], 0, counted[0] * counted[1] * 255 // 100)
    past = past_of(tables, history, counts)
    rows = np.array([UNKNOWN_ROW, *map(tables.items.ids.row, NAMES)], np.int64)
    together = graded_evidence(tables.items, rows, past)
    for place, candidate in enumerate([None, *NAMES]):
        expected = pytest.approx(reference(items, history, counts, candidate), abs=1e-5)
        (alone,) = graded_evidence(tables.items, rows[[place]], past)
        assert together[place] == expected
        assert alone == expected


def test_of_nobody_and_nothing_all_is_as_expected(text):
    """No surprise, no distance from the mean, the usual spread."""
    tables = Tables(text, DIM)
    (features,) = graded_evidence(tables.items, np.array([UNKNOWN_ROW]), GradedPast.unknown())
    assert features.tolist() == [0.0] * len(GRADED_FEATURES)


def test_the_regression_is_made_on_the_latest_hundred(text):
    """Its time would grow with the cube of a history's length; all other features count the whole."""
    items = {name: ("Ann", [128] * 3, "", None) for name in NAMES}
    tables = tables_of(text, items)
    long = [(NAMES[at % 5], 10 * (at % 25)) for at in range(150)]
    rows = np.array([tables.items.ids.row("i0")])
    place = GRADED_FEATURES.index("past_grade")
    whole, latest = (
        graded_evidence(tables.items, rows, past_of(tables, history, (150, 0, 9_000)))[0]
        for history in (long, long[-100:])
    )
    assert whole[place] == latest[place] != 0
    assert whole[GRADED_FEATURES.index("history_grade")] != latest[GRADED_FEATURES.index("history_grade")]


def test_many_books_of_one_author_tell_little_more_than_a_few(text):
    """Where a weighted mean would be carried away, the regression asks what is new: a liked author whose books the user
    has met often moves a book of another author less than as many liked authors do.
    """
    names = [f"b{number}" for number in range(9)]
    place = GRADED_FEATURES.index("past_grade")

    def told(authors):
        items = {name: (author, [128] * 3, "", None) for name, author in zip(names, authors, strict=True)}
        tables = tables_of(text, items)
        past = past_of(tables, [(name, 255) for name in names[:8]], (8, 0, 8 * 255))
        return graded_evidence(tables.items, np.array([tables.items.ids.row("b8")]), past)[0, place]

    one_author, many_authors = told(["Ann"] * 8 + ["Zoe"]), told([*"ABCDEFGH", "Zoe"])
    assert 0 < one_author < many_authors


@pytest.mark.parametrize("count", [2**63 - 1, 2**40])
def test_counts_beyond_all_reason_stay_within_the_range_of_grades(text, count):
    """Sums of them may wrap around; features stay finite and within ±1."""
    tables = tables_of(text, {name: ("Ann", [], "", None) for name in "ab"})
    for name in ("a", "b"):
        tables.items.set_counts(np.array([tables.items.ids.row(name)]), np.full((1, 3), count))
    past = past_of(tables, [("a", 255)], (count, count, count))
    features = graded_evidence(tables.items, np.array([0, 1]), past)
    assert np.isfinite(features).all()
    assert np.abs(features).max() <= 1
