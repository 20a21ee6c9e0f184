"""Which waiting requests can still be answered by a head in time. Plain numbers: no torch, no Kafka, no clock."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray


class AdmissionEstimate(msgspec.Struct, frozen=True, gc=False):
    """What admission has to know of a request, or a part of it, that waits."""

    deadline_s: float
    first_head_s: float
    """Predicted seconds from its start until the first head has answered."""
    least_work_s: float
    """Predicted seconds that it keeps the engine busy at the lowest threshold."""
    may_be_late: bool = False
    """Its sender prefers a late answer to one from the graph."""


def admissible(now_s: float, busy_s: float, estimates: Sequence[AdmissionEstimate]) -> NDArray[np.bool_]:
    """Which of those that wait can still reach the first head in time, served in the given order.

    Args:
        now_s: monotonic seconds.
        busy_s: seconds until the engine has finished what it is working on.
        estimates: in the order of service.

    Returns:
        (estimates,) whether to keep it; the others are to be answered from the graph.
    """
    kept = np.zeros(len(estimates), np.bool_)
    free_at_s = now_s + busy_s
    for place, estimate in enumerate(estimates):
        if estimate.may_be_late or free_at_s + estimate.first_head_s <= estimate.deadline_s:
            kept[place] = True
            free_at_s += estimate.least_work_s
    return kept
