"""What networks read of an event is as of the event."""

import math
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.peers import network_inputs as module
from evaluation.peers.network_inputs import ALIKE, RECENT, network_inputs
from evaluation.peers.running_rates import values_of
from schemas.messages import Interaction, Item

ITEMS = [
    Item(item_id=f"i{n}", title=f"Word{n % 3} of word{n}", attributes={"author": f"a{n % 3}", "genres": f"g{n % 2}, x"})
    for n in range(7)
]


def log_of(pairs):
    """One event a second of users and items by number, every third one clicked."""
    events = [
        Interaction(event_id=str(n), user_id=f"u{user}", item_id=f"i{item}", kind="rating", event_time_ms=1_000 * n)
        for n, (user, item) in enumerate(pairs)
    ]
    return events, np.arange(len(events)) % 3 == 0


def inputs_of(pairs, train=None, items=ITEMS):
    """Inputs with one random rate."""
    events, clicked = log_of(pairs)
    rates = np.random.default_rng(0).normal(size=(len(events), 1))
    return network_inputs(items, events, clicked, rates, np.arange(len(events) if train is None else train))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6)), min_size=1, max_size=60))
def test_pasts_are_those_of_a_plain_search(pairs):
    """The latest events of the same user, and the events with the rarest shared values; none is from later."""
    inputs = inputs_of(pairs)
    values = [set(values_of(item.attributes)) for item in ITEMS]
    count = Counter(value for each in values for value in each)
    for place, (user, item) in enumerate(pairs):
        past = [earlier for earlier in range(place) if pairs[earlier][0] == user]
        expected = past[::-1][:RECENT]
        assert inputs.recent[place].tolist() == expected + [-1] * (RECENT - len(expected))
        alike = {
            earlier: round(sum(math.log(1 + 7 / count[value]) for value in values[item] & values[pairs[earlier][1]]), 9)
            for earlier in past
            if values[item] & values[pairs[earlier][1]]
        }
        found = [earlier for earlier in inputs.alike[place].tolist() if earlier >= 0]
        best = sorted(alike.values(), reverse=True)[:ALIKE]
        assert [alike[earlier] for earlier in found] == best


def test_equally_alike_events_are_found_latest_first_and_no_more_than_are_searched(monkeypatch):
    """Of four events with the same item the two latest are found."""
    monkeypatch.setattr(module, "SEARCHED", 2)
    inputs = inputs_of([(0, 1)] * 5)
    assert inputs.alike[4].tolist()[:3] == [3, 2, -1]


def test_only_the_training_part_gives_rows_of_their_own():
    """Later users and items share row 0; texts are known for all of the catalogue, and an item outside it has none."""
    inputs = inputs_of([(0, 0), (1, 1), (2, 2), (0, 9)], train=2)
    assert inputs.users.tolist() == [1, 2, 0, 1]
    assert inputs.item_ids[inputs.items].tolist() == [1, 2, 0, 0]
    words, values = inputs.words[inputs.items], inputs.values[inputs.items]
    assert (words[2] > 0).sum() == 2  # of, word2
    assert (values[2] > 0).sum() == 3  # the author and two genres
    assert words[3].sum() == values[3].sum() == 0


def test_the_same_words_and_values_have_the_same_bucket():
    """Items 1 and 4 share two words and the author, but neither the third word nor the genre of the number."""
    inputs = inputs_of([(0, 1), (0, 4)])
    words, values = (set(table[1].tolist()) & set(table[4].tolist()) - {0} for table in (inputs.words, inputs.values))
    assert len(words) == len(values) == 2


def test_rates_are_standardised_on_the_training_part():
    """Its mean is 0 and its spread 1."""
    inputs = inputs_of([(0, 0)] * 50, train=40)
    known = inputs.rates[:40].numpy()
    assert np.allclose(known.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(known.std(axis=0), 1, atol=1e-5)
