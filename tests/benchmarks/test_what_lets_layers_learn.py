"""What lets layers learn: one thing changed at a time."""

from dataclasses import replace

import pytest

from benchmarks.what_lets_layers_learn import VARIANTS, measure, table
from event_data.synthetic import SyntheticSize, synthetic_log
from training.presets import DEMO


def test_each_variant_differs_from_the_preset_in_one_setting():
    """And none is the preset again."""
    shipped = VARIANTS["as shipped"]
    for name, preset in VARIANTS.items():
        changed = [
            part for part in ("limits", "template", "graph", "exits") if getattr(preset, part) != getattr(shipped, part)
        ]
        assert len(changed) == (name != "as shipped")


@pytest.mark.slow
def test_a_variant_is_trained_and_has_a_row():
    """The AUC of each head, and what the exits save."""
    log = synthetic_log(SyntheticSize(users=40, items=30, sessions=150))
    tiny = replace(
        DEMO,
        graph=replace(DEMO.graph, dim=8, steps=20),
        exits=replace(DEMO.exits, hidden=16, attention_heads=2, epochs=1),
    )
    head, _, row = table({"tiny": measure(log, tiny)}).splitlines()
    assert head == "| variant | layer 1 | layer 2 | layer 4 | token-layers executed |"
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "tiny"
    assert all(0 < float(cell) < 1 for cell in cells[1:4])
    assert cells[4].endswith(" %")
