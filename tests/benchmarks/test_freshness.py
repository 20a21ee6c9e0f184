"""The stream of interactions never repeats itself, however long it runs."""

import random
from collections import Counter
from itertools import islice

from benchmarks.freshness import endless
from schemas.messages import Interaction

LOG = [
    Interaction(event_id=f"e{user}{item}", user_id=f"u{user}", item_id=f"i{item}", kind="click", event_time_ms=1)
    for user in range(4)
    for item in range(user + 2)
]
ROUNDS = 3


def stream():
    """Three rounds of it."""
    return list(islice(endless(LOG, random.Random(0)), ROUNDS * len(LOG)))


def test_the_first_round_is_the_data_set():
    """Users and items are those of the log until it is used up."""
    pairs = {(event.user_id, event.item_id) for event in stream()[: len(LOG)]}
    assert pairs == {(event.user_id, event.item_id) for event in LOG}


def test_no_interaction_comes_twice():
    """Neither an event id nor a pair of user and item is ever sent again."""
    events = stream()
    assert len({event.event_id for event in events}) == len(events)
    assert len({(event.user_id, event.item_id) for event in events}) == len(events)


def test_every_round_has_the_distribution_of_the_data_set():
    """Each round has the log's item popularity and its number of events per user."""
    events = stream()
    for begin in range(0, len(events), len(LOG)):
        part = events[begin : begin + len(LOG)]
        assert Counter(event.item_id for event in part) == Counter(event.item_id for event in LOG)
        assert sorted(Counter(event.user_id for event in part).values()) == sorted(
            Counter(event.user_id for event in LOG).values()
        )


def test_the_order_differs_from_round_to_round():
    """A round is not the one before with other names."""
    items = [event.item_id for event in stream()]
    assert items[: len(LOG)] != items[len(LOG) : 2 * len(LOG)]
