"""Who leaves at a head."""

import numpy as np
import pytest

from worker.engine.exits import leaving

CONFIDENCE = np.array([0.2, 0.5, 0.9])


@pytest.mark.parametrize(("threshold", "out"), [(0.5, [0, 1, 1]), (0.0, [1, 1, 1]), (1.0, [0, 0, 0])])
def test_confidence_at_or_above_the_threshold_leaves(threshold, out):
    """Reaching the threshold is enough; a higher threshold keeps more in."""
    assert leaving(CONFIDENCE, threshold, is_final=False, floor="graph").tolist() == [bool(one) for one in out]


def test_everyone_leaves_at_the_final_head():
    """Behind the final head there is nothing to wait for."""
    assert leaving(CONFIDENCE, 2.0, is_final=True, floor="graph").all()


def test_a_final_head_floor_forbids_early_answers():
    """Who asks for the final head gets it, however confident an earlier one is."""
    assert not leaving(CONFIDENCE, 0.0, is_final=False, floor="final_head").any()
