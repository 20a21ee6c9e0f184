"""Settings that cannot work."""

from __future__ import annotations

import pytest

from graph_updater.config import GraphConfig, InvalidGraphConfig


@pytest.mark.parametrize(
    "setting",
    [
        {"epsilon": 1.0},
        {"epsilon": -0.1},
        {"degree_cap": -1},
        {"window_ms": -1},
        {"half_life_ms": -5},
        {"history_length": 0},
        {"publish_min_cosine": 1.5},
    ],
)
def test_a_setting_that_cannot_work_is_named(setting):
    """The error names the setting, its value and what it may be."""
    (name, value) = next(iter(setting.items()))
    with pytest.raises(InvalidGraphConfig, match=f"{name} is {value}"):
        GraphConfig(**setting)
