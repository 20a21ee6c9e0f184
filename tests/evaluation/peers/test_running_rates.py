"""Running rates of users, items and attributes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.peers.running_rates import (
    ATTRIBUTE_FEATURES,
    COUNT_FEATURES,
    PRIOR_WITH_USER,
    clicked,
    graded,
    running_rates,
    values_of,
)
from schemas.messages import Interaction, Item

NAMES = (*COUNT_FEATURES, *ATTRIBUTE_FEATURES)
ITEMS = [
    Item(item_id="i0", attributes={"author": "Ann"}),
    Item(item_id="i1", attributes={"author": "ann ", "genres": "Comedy, Drama"}),
    Item(item_id="i2", attributes={"genres": "Drama"}),
    Item(item_id="i3"),
]
events = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.booleans()), max_size=25)


def log_of(drawn):
    """Interactions of these users, items (the fifth is not in the catalogue) and outcomes."""
    return [
        Interaction(
            event_id=str(n),
            user_id=f"u{user}",
            item_id=f"i{item}",
            kind="impression",
            event_time_ms=n,
            positive=click,
            grade=None if n % 3 == 0 else n % 5 / 4,
        )
        for n, (user, item, click) in enumerate(drawn)
    ]


def logit(rate):
    """Log-odds."""
    return math.log(rate / (1 - rate))


def by_hand(past, event, prior, outcome):
    """The features of one event from its whole past, counted anew."""
    values = {item.item_id: values_of(item.attributes) for item in ITEMS}

    def counted(matches):
        outcomes = [outcome(other) for other in past if matches(other)]
        return sum(outcomes), len(outcomes)

    def shrunk(counts, towards, weight):
        return (counts[0] + weight * towards) / (counts[1] + weight)

    overall = shrunk(counted(lambda _: True), 0.5, 1.0)
    user = counted(lambda other: other.user_id == event.user_id)
    item = counted(lambda other: other.item_id == event.item_id)
    user_rate = shrunk(user, overall, prior)
    row = [logit(user_rate), math.log1p(user[1]), logit(shrunk(item, overall, prior)), math.log1p(item[1])]
    own = values.get(event.item_id, ())
    if not own:
        return [*row, 0.0, 0.0, 0.0, 0.0]
    everyone = [counted(lambda other, v=value: v in values.get(other.item_id, ())) for value in own]
    with_user = [
        counted(lambda other, v=value: v in values.get(other.item_id, ()) and other.user_id == event.user_id)
        for value in own
    ]
    return [
        *row,
        np.mean([logit(shrunk(counts, overall, prior)) for counts in everyone]),
        math.log1p(np.mean([counts[1] for counts in everyone])),
        np.mean([logit(shrunk(counts, user_rate, PRIOR_WITH_USER)) for counts in with_user]) - logit(user_rate),
        math.log1p(np.mean([counts[1] for counts in with_user])),
    ]


@given(events, st.sampled_from([1.0, 10.0]), st.sampled_from([clicked, graded]))
def test_each_events_rates_are_those_of_its_past(drawn, prior, outcome):
    """Counting the whole past anew for every event gives the same: nothing of the event or after it is known."""
    log = log_of(drawn)
    features = running_rates(ITEMS, log, prior, outcome)
    assert features.shape == (len(log), len(NAMES))
    for place, event in enumerate(log):
        assert features[place] == pytest.approx(by_hand(log[:place], event, prior, outcome), abs=1e-9)


def test_values_are_split_and_known_without_case():
    """A comma, a semicolon or a bar stands between two values; empty pieces are none."""
    assert values_of({"genres": "Comedy, drama;|Drama", "author": " Ann "}) == (
        ("genres", "comedy"),
        ("genres", "drama"),
        ("author", "ann"),
    )
