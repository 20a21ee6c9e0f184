"""Which epoch is kept, mixed with how much of the regression, and when a training ends."""

import math

import numpy as np
import pytest

from evaluation.metrics import log_loss
from training.best_epoch import BestEpoch, loss_of

LABELS = np.array([0.0, 1.0] * 50)
SIGNS = 2 * LABELS - 1


def logits(right):
    """Answers that lie on the right side by so much."""
    return right * SIGNS


def taken(epochs, answers):
    """Which epochs are kept for the time being, as far as training goes."""
    kept = []
    for answer in answers:
        kept.append(epochs.take(answer))
        if epochs.is_over:
            break
    return kept


def without_regression(patience):
    """Of a model whose epochs are judged by themselves."""
    return BestEpoch(LABELS, None, patience)


def test_so_many_epochs_in_a_row_without_improvement_end_it():
    """An improvement in between begins the count anew; as good as before is none."""
    assert taken(without_regression(2), map(logits, [1, 0.5, 2, 2, 1, 3])) == [True, False, True, False, False]
    assert taken(without_regression(1), map(logits, [1, 1, 3])) == [True, False]


def test_a_loss_that_is_no_number_is_no_improvement():
    """Nor does it hide later ones, with a regression or without; infinite logits are none either."""
    for away in (math.nan, math.inf):
        answers = [logits(away), logits(1), logits(away)]
        assert taken(without_regression(2), answers) == [False, True, False]
        assert taken(BestEpoch(LABELS, logits(0.5), 2), answers) == [False, True, False]


def test_while_no_epoch_is_better_the_regression_stands_alone():
    """One that says the opposite gets no share and is not kept; but while they become better, training goes on."""
    epochs = BestEpoch(LABELS, logits(1), 1)
    assert taken(epochs, [logits(-1), logits(-0.5), logits(-0.7), logits(2)]) == [False, False, False]
    assert epochs.share == 1.0
    assert epochs.loss == pytest.approx(loss_of(LABELS, logits(1)))


def test_the_kept_share_is_that_of_the_lowest_loss():
    """An epoch and a regression that err in different places are best mixed; told is the mixture's loss."""
    regression, layers = logits(2), logits(2)
    regression[:30], layers[40:60] = -regression[:30], -layers[40:60]
    epochs = BestEpoch(LABELS, regression, 1)
    assert epochs.take(layers)
    assert 0.1 < epochs.share < 0.9
    losses = {
        share: log_loss(LABELS, 1 / (1 + np.exp(-(share * regression + (1 - share) * layers))))
        for share in (epochs.share - 0.03, epochs.share, epochs.share + 0.03)
    }
    assert epochs.loss == pytest.approx(losses[epochs.share])
    assert min(losses, key=losses.get) == epochs.share


def test_later_epochs_have_to_beat_the_mixture():
    """A worse one changes nothing of what is kept."""
    epochs = BestEpoch(LABELS, logits(1), 1)
    assert epochs.take(logits(3))
    kept = epochs.loss, epochs.share
    assert not epochs.take(logits(2))
    assert (epochs.loss, epochs.share) == kept
    assert epochs.is_over


def test_it_goes_on_from_its_state():
    """What another process said is said again."""
    one, other = (BestEpoch(LABELS, logits(1), 2) for _ in range(2))
    one.take(logits(2))
    one.take(logits(1.5))
    other.continue_from(one.state())
    assert other.state() == one.state()
    for answers in (logits(1.8), logits(4)):
        assert other.take(answers) == one.take(answers)
        assert (other.is_over, other.share, other.loss) == (one.is_over, one.share, one.loss)
