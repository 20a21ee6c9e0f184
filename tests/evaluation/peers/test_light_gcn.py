"""LightGCN on the clicks of the training part."""

import msgspec
import numpy as np
import pytest

from evaluation.metrics import auc
from evaluation.peers import light_gcn
from evaluation.peers.light_gcn import GRID, LightGcnSettings, light_gcn_features
from evaluation.peers.network_inputs import network_inputs
from schemas.messages import Interaction, Item

EVENTS = 1_500
TRAIN = np.arange(1_200)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """The log is small."""
    monkeypatch.setattr(light_gcn, "STEPS", 60)


def world():
    """Forty users of two tastes and twenty items of two kinds; taste decides. The last user comes after training."""
    random = np.random.default_rng(0)
    users, items = random.integers(0, 40, EVENTS), random.integers(0, 20, EVENTS)
    events = [
        Interaction(event_id=str(n), user_id=f"u{user}", item_id=f"i{item}", kind="rating", event_time_ms=n)
        for n, (user, item) in enumerate(zip(users, items, strict=True))
    ]
    events[-1] = msgspec.structs.replace(events[-1], user_id="new")
    return events, random.random(EVENTS) < np.where(users % 2 == items % 2, 0.9, 0.1)


def inputs_of(events, clicked):
    """Without rates: LightGCN reads none."""
    catalogue = [Item(item_id=f"i{n}") for n in range(20)]
    return network_inputs(catalogue, events, clicked, np.zeros((EVENTS, 1)), TRAIN)


@pytest.mark.parametrize("settings", GRID, ids=str)
def test_scores_tell_a_taste_that_users_share(settings):
    """On events after the training part; who has no click there scores 0 and is marked as unknown."""
    events, clicked = world()
    features = light_gcn_features(inputs_of(events, clicked), TRAIN, settings)
    assert features.shape == (EVENTS, 2)
    assert auc(clicked[1_200:], features[1_200:, 0]) > 0.75
    assert features[-1].tolist() == [0.0, 0.0]
    assert features[:-1, 1].all()


def test_nothing_after_the_training_part_is_read():
    """Other outcomes there change no score."""
    events, clicked = world()
    other = clicked.copy()
    other[1_200:] ^= True
    one, changed = (
        light_gcn_features(inputs_of(events, labels), TRAIN, LightGcnSettings(1, True)) for labels in (clicked, other)
    )
    assert np.array_equal(one, changed)


def test_a_log_of_clicks_alone_takes_random_items():
    """Without anything shown and not clicked, the paper's own negatives are left."""
    events, _ = world()
    inputs = inputs_of(events, np.ones(EVENTS, bool))
    shown, drawn = (light_gcn_features(inputs, TRAIN, LightGcnSettings(1, way)) for way in (True, False))
    assert np.array_equal(shown, drawn)


def test_without_clicks_nothing_is_known():
    """All scores are 0."""
    events, _ = world()
    assert not light_gcn_features(inputs_of(events, np.zeros(EVENTS, bool)), TRAIN, GRID[0]).any()
