"""The built-in data set."""

import numpy as np
import pytest

from evaluation.metrics import auc
from event_data.synthetic import SyntheticSize, synthetic_log

SMALL = SyntheticSize(users=60, items=50, sessions=400)


def test_the_same_seed_gives_the_same_log_and_another_seed_another():
    """The data set is a function of size and seed."""
    assert synthetic_log(SMALL) == synthetic_log(SMALL)
    assert synthetic_log(SMALL, seed=1).interactions != synthetic_log(SMALL, seed=2).interactions


def test_events_are_in_order_of_time_with_distinct_ids_and_known_items():
    """The synthetic log is a valid event log."""
    log = synthetic_log(SMALL)
    times = [event.event_time_ms for event in log.interactions]
    assert times == sorted(times)
    assert len({event.event_id for event in log.interactions}) == len(log.interactions)
    assert {event.item_id for event in log.interactions} <= {item.item_id for item in log.items}
    assert all(item.title for item in log.items)


def test_a_users_own_past_tells_about_their_next_click():
    """Clicks on a genre in the first half predict clicks on it in the second."""
    log = synthetic_log()
    genre = {item.item_id: item.attributes["genres"].split(",")[0] for item in log.items}
    half = len(log.interactions) // 2
    liking: dict[tuple[str, str], list[bool]] = {}
    for event in log.interactions[:half]:
        liking.setdefault((event.user_id, genre[event.item_id]), []).append(event.positive)
    known = [event for event in log.interactions[half:] if (event.user_id, genre[event.item_id]) in liking]
    rates = [liking[event.user_id, genre[event.item_id]] for event in known]
    assert auc([event.positive for event in known], [sum(rate) / len(rate) for rate in rates]) > 0.6


def test_clicks_happen_as_often_as_their_probabilities_say():
    """Each event stands beside the probability it was drawn with, also after the log was put in order of time."""
    log = synthetic_log()
    clicked = np.array([event.positive for event in log.interactions], float)
    probabilities = np.array(log.click_probabilities)
    assert probabilities.shape == clicked.shape
    assert ((probabilities > 0) & (probabilities < 1)).all()
    for part in np.array_split(np.argsort(probabilities), 10):
        expected = probabilities[part]
        spread = np.sqrt((expected * (1 - expected)).sum()) / len(part)
        assert clicked[part].mean() == pytest.approx(expected.mean(), abs=4 * spread)


def test_the_probabilities_rank_better_than_any_count_could():
    """They are the limit: their AUC is far above that of the items' overall click rates, known in hindsight."""
    log = synthetic_log()
    labels = [event.positive for event in log.interactions]
    rates: dict[str, list[bool]] = {}
    for event in log.interactions:
        rates.setdefault(event.item_id, []).append(event.positive)
    in_hindsight = [float(np.mean(rates[event.item_id])) for event in log.interactions]
    assert auc(labels, log.click_probabilities) > auc(labels, in_hindsight) + 0.1
