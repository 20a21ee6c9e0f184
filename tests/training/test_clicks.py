"""Which interactions are clicks."""

import pytest

from schemas.messages import Interaction
from training.clicks import is_click


@pytest.mark.parametrize(
    ("kind", "positive", "click"),
    [("click", None, True), ("impression", None, False), ("click", False, False), ("rating", True, True)],
)
def test_what_an_interaction_says_itself_comes_before_its_kind(kind, positive, click):
    """Its own `positive` decides; without it, a click is what the updater counts as one."""
    event = Interaction(event_id="e", user_id="u", item_id="i", kind=kind, event_time_ms=1, positive=positive)
    assert is_click(event) is click
