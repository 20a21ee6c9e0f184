"""What a kind of evidence is worth to a model that learned with it: the same events scored without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from evaluation.auc_difference import AucDifference

NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class LeftOutPoint:
    """Quality without a kind of evidence."""

    left_out: str
    auc: float
    log_loss: float
    difference: AucDifference
    """AUC without it minus AUC with all evidence."""
