"""Settings that cannot work."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from graph_updater.graph.config import GraphConfig


@pytest.mark.parametrize(
    "setting",
    [
        {"epsilon": 1.0},
        {"epsilon": -0.1},
        {"degree_cap": -1},
        {"window_ms": -1},
        {"half_life_ms": -5},
        {"publish_min_cosine": 1.5},
    ],
)
def test_a_setting_that_cannot_work_is_named(setting):
    """The error names the setting and what it may be."""
    (name,) = setting
    with pytest.raises(ValidationError, match=name):
        GraphConfig(**setting)
