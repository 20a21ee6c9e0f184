"""Chooses a threshold with a statistical guarantee: learn then test (Angelopoulos et al., arXiv 2110.01052), as in CALM
(Schuster et al., NeurIPS 2022), with a betting test (Waudby-Smith & Ramdas, arXiv 2010.09686) per threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def lowest_safe(
    thresholds: Sequence[float],
    risks: Callable[[float], ArrayLike],
    limit: float,
    failure_probability: float,
) -> float | None:
    """The lowest threshold whose mean risk is shown to be at most `limit`.

    Thresholds are tested in a fixed order, the safest first, and the first failure ends the search. So the probability
    that the mean risk of the result exceeds `limit` is at most `failure_probability`, however many were tested.

    Args:
        thresholds: to test, the safest first.
        risks: (n,) risks within [0, 1] of independent examples at a threshold.
        limit: the largest mean risk allowed.
        failure_probability: of a result that is not safe, over draws of the examples.

    Returns:
        The threshold, or None if not even the safest is shown to be safe.
    """
    chosen = None
    for threshold in thresholds:
        if betting_p_value(risks(threshold), limit, failure_probability) > failure_probability:
            break
        chosen = threshold
    return chosen


def betting_p_value(risks: ArrayLike, limit: float, failure_probability: float) -> float:
    """A valid p-value of the hypothesis that the mean of risks within [0, 1] exceeds `limit`.

    A gambler bets, example by example, that the risk is below the limit, and never stakes more than they own. If the
    hypothesis is true, their wealth is unlikely ever to become large (Ville's inequality). Stakes follow the variance
    seen so far, which makes the test sharp where risks vary little.

    Raises:
        ValueError: a risk lies outside [0, 1].
    """
    observed = np.asarray(risks, np.float64)
    if not len(observed):
        return 1.0
    if observed.min() < 0.0 or observed.max() > 1.0:
        raise ValueError(f"risks from {observed.min()} to {observed.max()}, must be within [0, 1]")
    counts = np.arange(1, len(observed) + 1)
    means = (0.5 + np.cumsum(observed)) / (counts + 1)
    variances = (0.25 + np.cumsum((observed - means) ** 2)) / (counts + 1)
    variance_before = np.concatenate(([0.25], variances[:-1]))
    stakes = np.sqrt(2 * np.log(1 / failure_probability) / (len(observed) * variance_before))
    stakes = np.minimum(stakes, 0.75 / (1 - limit) if limit < 1 else np.inf)
    wealth = np.cumsum(np.log1p(-stakes * (observed - limit)))
    return float(min(1.0, np.exp(-wealth.max())))
