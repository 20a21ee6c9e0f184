"""Who leaves at a head. Pure: confidences in, decisions out; the criteria themselves are in `models.calibration`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.messages import QualityFloor


def leaving(
    confidence: NDArray[np.float64], threshold: float, *, is_final: bool, floor: QualityFloor
) -> NDArray[np.bool_]:
    """Which candidates leave at this head.

    Args:
        confidence: (n,) of the candidates that have reached it.
        threshold: the exit threshold in force; a confidence equal to it suffices.
        is_final: whether no head follows.
        floor: the requester's quality floor; `final_head` forbids early answers.

    Returns:
        (n,).
    """
    if is_final:
        return np.ones(len(confidence), bool)
    if floor == "final_head":
        return np.zeros(len(confidence), bool)
    return confidence >= threshold
