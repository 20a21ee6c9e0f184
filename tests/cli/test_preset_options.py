"""What `exitstream train` changes of a preset."""

from __future__ import annotations

from dataclasses import replace

from cli.preset_options import PresetChanges
from training.presets import DEMO


def test_the_length_of_histories_is_a_presets_own_unless_another_is_asked_for():
    """Whatever else is changed; nothing else changes with it."""
    assert PresetChanges().of(DEMO) == DEMO
    assert PresetChanges(history_length=120).of(DEMO) == replace(DEMO, limits=replace(DEMO.limits, history_length=120))
    fewer = PresetChanges(most_held_out=300, most_tested=20).of(DEMO)
    assert fewer == replace(DEMO, most_held_out=300, most_tested=20)
    with_words = PresetChanges(prompt="words", history_length=120).of(DEMO)
    assert with_words.limits.history_length == 120
    assert with_words.template != DEMO.template
