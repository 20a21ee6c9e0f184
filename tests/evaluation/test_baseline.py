"""The baseline of running means."""

import pytest

from evaluation.baseline import RunningMeans, running_means_auc
from schemas.messages import Interaction


def test_running_means_know_only_what_was_added():
    """A mean moves with an event only after the event has been added."""
    means = RunningMeans()
    event = Interaction(event_id="e", user_id="u", item_id="i", kind="click", event_time_ms=1, positive=True)
    before = means.score("u", "i")
    means.add(event)
    assert before == pytest.approx(1.0)
    assert means.score("u", "i") > means.score("v", "j") - 1e-12


def test_the_running_means_are_as_of_each_event():
    """An event is scored before it is added: a first click raises only later scores."""
    click, skip = (
        Interaction(event_id=name, user_id=name, item_id=name, kind="impression", event_time_ms=1, positive=positive)
        for name, positive in (("a", True), ("b", False))
    )
    assert running_means_auc([], [click, skip]) == 0.0
