"""The baseline of running means."""

import pytest

from evaluation.baseline import RunningMeans, running_means_auc
from schemas.messages import Interaction


def event(user, item, positive):
    """An impression and its outcome."""
    return Interaction(
        event_id=f"{user}-{item}", user_id=user, item_id=item, kind="impression", event_time_ms=1, positive=positive
    )


def test_a_score_is_the_users_rate_plus_the_items_both_shrunk_to_the_overall_rate():
    """Each rate starts with ten imagined impressions at the overall rate; an unknown id has just that."""
    means = RunningMeans()
    assert means.score("u", "i") == pytest.approx(0.5 + 0.5)  # nothing known at all
    for outcome in (event("u", "i", True), event("v", "i", True), event("v", "j", False), event("v", "k", False)):
        means.add(outcome)
    assert means.score("u", "i") == pytest.approx((1 + 5) / (1 + 10) + (2 + 5) / (2 + 10))
    assert means.score("v", "j") == pytest.approx((1 + 5) / (3 + 10) + (0 + 5) / (1 + 10))
    assert means.score("new", "new") == pytest.approx(1.0)


def test_the_running_means_are_as_of_each_event():
    """An event is scored before it is added: a first click raises only later scores."""
    assert running_means_auc([], [event("a", "a", True), event("b", "b", False)]) == 0.0


def test_history_is_known_but_not_scored():
    """Events before the tested ones count in the rates alone."""
    history = [event("a", "i", True), event("b", "i", False)] * 20
    assert running_means_auc(history, [event("a", "j", True), event("b", "j", False)]) == 1.0
