"""Which epoch is kept, and when a training ends."""

import math

from training.best_epoch import BestEpoch


def taken(losses, *, to_beat, patience, begins_there=False):
    """Which epochs are kept for the time being, as far as training goes."""
    epochs, kept = BestEpoch(to_beat, patience, begins_there=begins_there), []
    for loss in losses:
        kept.append(epochs.take(loss))
        if epochs.is_over:
            break
    return kept


def test_an_epoch_is_kept_that_is_better_than_all_before_and_than_what_is_to_beat():
    """Those before the first such one are not kept, and do not end the training while they improve."""
    assert taken([0.9, 0.8, 0.69, 0.7, 0.6], to_beat=0.7, patience=2) == [False, False, True, False, True]


def test_so_many_epochs_in_a_row_without_improvement_end_it():
    """An improvement in between begins the count anew; as good as before is none."""
    assert taken([0.6, 0.7, 0.5, 0.5, 0.55, 0.1], to_beat=math.inf, patience=2) == [True, False, True, False, False]
    assert taken([0.6, 0.6, 0.1], to_beat=math.inf, patience=1) == [True, False]
    assert taken([0.9, 0.95, 0.1], to_beat=0.5, patience=1) == [False, False]


def test_a_loss_that_is_no_number_is_no_improvement():
    """Nor does it hide later ones."""
    assert taken([math.nan, 0.6, math.nan], to_beat=0.7, patience=2) == [False, True, False]


def test_who_begins_with_what_is_to_beat_stops_where_that_is_not_improved_on():
    """Else the first epoch is the first to improve on."""
    assert taken([0.8, 0.6], to_beat=0.7, patience=1, begins_there=True) == [False]
    assert taken([0.8, 0.6], to_beat=0.7, patience=1) == [False, True]
