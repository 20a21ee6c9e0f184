"""Logistic regression and trees, tuned on the validation part."""

import numpy as np
import pytest

from evaluation.metrics import auc, log_loss
from evaluation.peers import fitting
from evaluation.peers.fitting import Part, fit_logistic_regression, fit_trees


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few trees are enough for a few hundred rows."""
    monkeypatch.setattr(fitting, "MOST_TREES", 40)


def parts(chance, seed=0, rows=1_500):
    """Train, validation and test part of labels drawn with a chance of three uniform features."""
    random = np.random.default_rng(seed)
    features = random.uniform(-1, 1, (3, rows, 3))
    return [Part(part, random.random(rows) < chance(part)) for part in features]


def linear(features):
    """What a logistic regression can learn."""
    return 1 / (1 + np.exp(-3 * features[:, 0]))


def crossed(features):
    """What only trees can learn."""
    return np.where(features[:, 0] * features[:, 1] > 0, 0.9, 0.1)


@pytest.mark.parametrize("fit", [fit_logistic_regression, fit_trees])
def test_what_is_learned_holds_on_the_test_part(fit):
    """Close to the limit, and calibrated: the log loss is that of the true chances within a few hundredths."""
    train, validation, test = parts(linear)
    predicted = fit(train, validation).predict(test.features)
    assert auc(test.labels, predicted) > auc(test.labels, linear(test.features)) - 0.02
    assert log_loss(test.labels, predicted) < log_loss(test.labels, linear(test.features)) + 0.03


def test_trees_learn_what_no_line_separates():
    """An interaction of two features is chance for the regression."""
    train, validation, test = parts(crossed)
    trees, line = (fit(train, validation).predict(test.features) for fit in (fit_trees, fit_logistic_regression))
    assert auc(test.labels, trees) > 0.8
    assert auc(test.labels, line) < 0.6


@pytest.mark.parametrize("fit", [fit_logistic_regression, fit_trees])
def test_the_settings_are_those_that_are_best_on_the_validation_part(fit):
    """The told loss is what the returned model has there; with noise alone little is fitted."""
    train, validation, _ = parts(linear)
    fitted = fit(train, validation)
    assert fitted.validation_log_loss == pytest.approx(log_loss(validation.labels, fitted.predict(validation.features)))
    noise = parts(lambda features: np.full(len(features), 0.5), rows=400)
    assert fit(noise[0], noise[1]).settings != fitted.settings
