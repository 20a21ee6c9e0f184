"""What candidates share with other items, compared with a reference that adds up in plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attributes import TITLE, attribute_values, title_words
from models.features import SHARED_FEATURES
from schemas.messages import Item, ItemState
from worker.shared_evidence import shared_evidence
from worker.state_store.rows import UNKNOWN_ROW
from worker.state_store.tables import Tables

DIM = 4
NAMES = st.sampled_from([f"i{number}" for number in range(6)])
AUTHORS = st.sampled_from(["", "Ann", "Bob", "ann.", "Ann, Bob", "Cid"])
TITLES = st.sampled_from([None, "Dark Station", "Station", "Silent River", "Dark dark River"])
CHANGES = st.one_of(
    st.tuples(st.just("item"), NAMES, TITLES, AUTHORS),
    st.tuples(st.just("state"), NAMES, st.integers(0, 9), st.integers(0, 9)),
    st.tuples(st.just("no item"), NAMES),
    st.tuples(st.just("no state"), NAMES),
)
HISTORY = st.lists(st.tuples(NAMES, st.booleans()), max_size=8)


class Reference:
    """The catalogue and the counts in plain dictionaries."""

    def __init__(self):
        self.words, self.values, self.counts = {}, {}, {}

    def apply(self, change):
        match change:
            case "item", name, title, author:
                self.words[name] = [word.key for word in title_words(title) if word.name == TITLE]
                self.values[name] = [value.key for value in attribute_values({"author": author})]
            case "state", name, more, positives:
                self.counts[name] = (more + positives, positives)
            case "no item", name:
                self.words[name] = self.values[name] = []
            case "no state", name:
                self.counts[name] = (0, 0)

    def shown(self, name):
        return self.counts.get(name, (0, 0))

    def of_others(self, values, candidate, value):
        others = [self.shown(name) for name in values if name != candidate and value in values[name]]
        return sum(shown for shown, _ in others), sum(clicked for _, clicked in others)

    def with_user(self, values, history, value):
        met = [(name, clicked) for name, clicked in history if value in values.get(name, ())]
        surprise = sum(clicked - (self.shown(n)[1] + 2) / (self.shown(n)[0] + 4) for n, clicked in met)
        return len(met), sum(clicked for _, clicked in met), surprise

    def features(self, values, candidate, history):
        rate = known = met = met_weight = surprise = impressions = 0.0
        for value in values[candidate]:
            shown, clicked = self.of_others(values, candidate, value)
            count, _, theirs = self.with_user(values, history, value)
            weight = 1 / math.log(math.e + shown)
            known += weight * shown / (shown + 4)
            rate += weight * shown / (shown + 4) * math.log((clicked + 2) / (shown - clicked + 2))
            impressions += shown
            met, met_weight, surprise = met + count, met_weight + weight * count, surprise + weight * theirs
        mean = impressions / max(1, len(values[candidate]))
        return [rate / max(known, 1e-6), math.log1p(mean), surprise / (met_weight + 0.5), math.log1p(met)]


def state_of(name, impressions, positives):
    """An item's state without embedding."""
    return ItemState(
        item_id=name,
        embedding=None,
        impressions=impressions,
        positives=positives,
        last_event_time_ms=0,
        published_time_ms=0,
    )


def put(tables, change):
    """One change of the tables."""
    match change:
        case "item", name, title, author:
            tables.put_item(Item(item_id=name, title=title, attributes={"author": author}))
        case "state", name, more, positives:
            tables.put_item_state(state_of(name, more + positives, positives))
        case "no item", name:
            tables.remove_item(name)
        case "no state", name:
            tables.remove_item_state(name)


@settings(max_examples=200)
@given(st.lists(CHANGES, max_size=25), HISTORY)
def test_as_the_reference_after_any_changes(text, changes, history):
    """Features and counts, for every candidate, whatever came and went before."""
    tables, reference = Tables(text, DIM), Reference()
    for change in changes:
        put(tables, change)
        reference.apply(change)
    ids = tables.items.ids
    history = [(name, clicked) for name, clicked in history if ids.row(name) != UNKNOWN_ROW]
    candidates = [name for name in reference.values if ids.row(name) != UNKNOWN_ROW]
    found = shared_evidence(
        tables.items,
        np.array([UNKNOWN_ROW, *map(ids.row, candidates)], np.int64),
        np.array([ids.row(name) for name, _ in history], np.int64),
        np.array([clicked for _, clicked in history], np.bool_),
    )
    assert found[0].features is None
    for name, shared in zip(candidates, found[1:], strict=True):
        wanted = [
            number
            for values in (reference.values, reference.words)
            for number in reference.features(values, name, history)
        ]
        assert shared.features == pytest.approx(wanted, abs=1e-5)
        for one, value in zip(shared.attributes, reference.values[name], strict=True):
            assert (one.impressions, one.positives) == reference.of_others(reference.values, name, value)
            met = reference.with_user(reference.values, history, value)
            assert (one.user_impressions, one.user_positives) == met[:2]
            assert one.user_surprise == pytest.approx(met[2])


def test_a_user_who_likes_an_author_and_one_who_does_not(text):
    """The surprise points the way that the user's own past does; a stranger's author says nothing."""
    tables = Tables(text, DIM)
    for name, author in (("read", "Ann"), ("next", "Ann"), ("other", "Bob")):
        tables.put_item(Item(item_id=name, title=None, attributes={"author": author}))
        tables.put_item_state(state_of(name, 10, 5))
    rows = np.array([tables.items.ids.row(name) for name in ("next", "other")])
    past = np.array([tables.items.ids.row("read")])
    place = SHARED_FEATURES.index("attribute_surprise")
    liked, disliked = (shared_evidence(tables.items, rows, past, np.array([clicked])) for clicked in (True, False))
    assert liked[0].features[place] > 0 > disliked[0].features[place]
    assert liked[1].features[place] == 0
    assert liked[0].attributes[0].value == "Ann"
