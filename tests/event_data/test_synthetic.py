"""The built-in data set."""

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
