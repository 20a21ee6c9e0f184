"""Requests are cut from the end of a log so that every candidate has a label and nothing comes before its time."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from event_data.event_log import EventLog
from loadgen.plan import SESSION_GAP_MS, make_plan
from schemas.messages import Interaction


def _log(events):
    interactions = [
        Interaction(
            event_id=f"e{number}",
            user_id=f"u{user}",
            item_id=f"i{item}",
            kind="rating",
            event_time_ms=time,
            positive=positive,
        )
        for number, (user, item, time, positive) in enumerate(sorted(events, key=lambda event: event[2]))
    ]
    return EventLog("test", [], interactions)


events_strategy = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 10 * SESSION_GAP_MS), st.booleans()),
    min_size=1,
    max_size=60,
)


@given(events_strategy, st.integers(1, 5))
def test_every_test_event_is_played_exactly_once(events, max_candidates):
    """History and impressions together are the log, each event once."""
    log = _log(events)
    plan = make_plan(log, max_impressions=1000, max_candidates=max_candidates)
    played = [event.event_id for event in plan.history]
    played += [event.event_id for impression in plan.impressions for event in impression.events]
    assert sorted(played) == sorted(event.event_id for event in log.interactions)


@given(events_strategy, st.integers(1, 5))
def test_a_page_is_one_users_distinct_items_without_a_long_pause(events, max_candidates):
    """No page mixes users, repeats an item, exceeds its size or spans a pause."""
    for impression in make_plan(_log(events), 1000, max_candidates).impressions:
        times = [event.event_time_ms for event in impression.events]
        assert {event.user_id for event in impression.events} == {impression.user_id}
        assert len(set(impression.item_ids)) == len(impression.item_ids) <= max_candidates
        assert all(later - earlier <= SESSION_GAP_MS for earlier, later in pairwise(times))


@given(events_strategy)
def test_impressions_start_in_time_order(events):
    """Requests are sent in the order in which their pages began."""
    starts = [impression.events[0].event_time_ms for impression in make_plan(_log(events), 1000).impressions]
    assert starts == sorted(starts)


def test_the_number_of_requests_is_bounded():
    """No more requests than asked for are planned."""
    log = _log([(user % 7, user, user * SESSION_GAP_MS * 2, True) for user in range(100)])
    assert len(make_plan(log, max_impressions=3).impressions) == 3


def test_a_repetition_is_new_traffic():
    """The same pages in the same order, requests and events under ids that were not used before; no history again."""
    plan = make_plan(_log([(user, item, 0, True) for user in range(3) for item in range(4)]), max_impressions=1000)
    again = plan.again(1)

    assert again.history == []
    assert [page.user_id for page in again.impressions] == [page.user_id for page in plan.impressions]
    assert [page.item_ids for page in again.impressions] == [page.item_ids for page in plan.impressions]
    plans = (plan, again, plan.again(2))
    requests = [page.request_id for each in plans for page in each.impressions]
    events = [event.event_id for each in plans for page in each.impressions for event in page.events]
    assert len(set(requests)) == len(requests)
    assert len(set(events)) == len(events)
