"""Training of the networks."""

import numpy as np
import pytest

from evaluation.metrics import auc, log_loss
from evaluation.peers import fit_networks
from evaluation.peers.fit_networks import fit_network
from evaluation.peers.network_inputs import network_inputs
from evaluation.peers.networks import NETWORKS
from schemas.messages import Interaction, Item

EVENTS = 2_400
TRAIN, VALIDATION, TEST = np.arange(1_800), np.arange(1_800, 2_100), np.arange(2_100, EVENTS)


@pytest.fixture(autouse=True)
def one_setting(monkeypatch):
    """Small batches, many epochs: the log is small."""
    monkeypatch.setattr(fit_networks, "LEARNING_RATES", (0.01,))
    monkeypatch.setattr(fit_networks, "PENALTIES", (0.003,))
    monkeypatch.setattr(fit_networks, "BATCH", 128)
    monkeypatch.setattr(fit_networks, "MOST_EPOCHS", 4)


@pytest.fixture(scope="module")
def inputs():
    """Each user likes one of two authors, and every item is new: only the past with the author tells."""
    random = np.random.default_rng(0)
    items = [Item(item_id=f"i{n}", attributes={"author": f"{n % 2}"}) for n in range(EVENTS)]
    users = random.integers(0, 80, EVENTS)
    events = [
        Interaction(event_id=str(n), user_id=f"u{user}", item_id=f"i{n}", kind="rating", event_time_ms=1_000 * n)
        for n, user in enumerate(users)
    ]
    liked = random.integers(0, 2, 80)[users] == np.arange(EVENTS) % 2
    clicked = np.where(random.random(EVENTS) < 0.95, liked, ~liked)
    return network_inputs(items, events, clicked, np.zeros((EVENTS, 1)), TRAIN)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_learns_a_taste_that_no_rate_tells(name, inputs):
    """What a user did with the author before tells nearly all; the told loss is that of the network kept."""
    fitted = fit_network(NETWORKS[name], inputs, TRAIN, VALIDATION)
    clicked = inputs.clicked.numpy()
    assert auc(clicked[TEST], fitted.predict(TEST)) > 0.85
    assert fitted.validation_log_loss == pytest.approx(log_loss(clicked[VALIDATION], fitted.predict(VALIDATION)))


def test_the_best_setting_is_kept_and_the_result_is_the_same_again(inputs, monkeypatch):
    """A learning rate that learns nothing loses; a second run gives the same numbers."""
    monkeypatch.setattr(fit_networks, "LEARNING_RATES", (1e-7, 0.01))
    monkeypatch.setattr(fit_networks, "MOST_EPOCHS", 1)
    one, other = (fit_network(NETWORKS["dcn_v2"], inputs, TRAIN, VALIDATION) for _ in range(2))
    assert one.settings == {"learning_rate": 0.01, "penalty": 0.003, "epochs": 1}
    assert np.array_equal(one.predict(TEST), other.predict(TEST))


def test_training_stops_when_it_gets_no_better(inputs, monkeypatch):
    """With a far too high learning rate the best epoch comes early, and that one is kept."""
    monkeypatch.setattr(fit_networks, "LEARNING_RATES", (0.3,))
    monkeypatch.setattr(fit_networks, "MOST_EPOCHS", 15)
    fitted = fit_network(NETWORKS["dcn_v2"], inputs, TRAIN[:500], VALIDATION)
    assert 1 <= fitted.settings["epochs"] < 15
    clicked = inputs.clicked.numpy()[VALIDATION]
    assert fitted.validation_log_loss == pytest.approx(log_loss(clicked, fitted.predict(VALIDATION)))
