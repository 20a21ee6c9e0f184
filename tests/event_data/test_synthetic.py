"""The built-in data set."""

import numpy as np
import pytest

from evaluation.metrics import auc
from event_data.synthetic import FIRST_WORDS, LAST_WORDS, SyntheticSize, synthetic_log

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


def past_rates(log, kind):
    """AUC in the second half of each user's click rate in the first half on items of the same kind."""
    half = len(log.interactions) // 2
    liking: dict[tuple[str, object], list[bool]] = {}
    for event in log.interactions[:half]:
        liking.setdefault((event.user_id, kind[event.item_id]), []).append(event.positive)
    known = [event for event in log.interactions[half:] if (event.user_id, kind[event.item_id]) in liking]
    rates = [liking[event.user_id, kind[event.item_id]] for event in known]
    return auc([event.positive for event in known], [sum(rate) / len(rate) for rate in rates])


def test_a_users_own_past_tells_about_their_next_click_through_the_combination_of_words():
    """Whether a title's moods agree tells more than either mood alone, and than the genre."""
    log = synthetic_log()
    words = {item.item_id: item.title.split() for item in log.items}
    first = {name: one in FIRST_WORDS[1] for name, (one, _) in words.items()}
    last = {name: other in LAST_WORDS[1] for name, (_, other) in words.items()}
    agree = past_rates(log, {name: first[name] == last[name] for name in words})
    assert agree > 0.6
    genres = {item.item_id: item.attributes["genres"].split(",")[0] for item in log.items}
    for alone in (genres, first, last):
        assert 0.5 < past_rates(log, alone) < agree - 0.02


def test_most_items_are_gone_within_days():
    """Three of four that were shown at all are not shown in more than a third of the time."""
    log = synthetic_log()
    seen: dict[str, list[int]] = {}
    for event in log.interactions:
        seen.setdefault(event.item_id, []).append(event.event_time_ms)
    spans = np.array([max(times) - min(times) for times in seen.values()])
    whole = log.interactions[-1].event_time_ms - log.interactions[0].event_time_ms
    assert (spans < whole / 3).mean() > 0.75
    assert (spans > 0.9 * whole).any()


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
