"""Choosing a threshold with a promise: learn then test (Angelopoulos et al., arXiv 2110.01052), as in CALM (Schuster et
al., NeurIPS 2022), with a betting test (Waudby-Smith & Ramdas, arXiv 2010.09686) for each threshold.
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
    """The lowest threshold of which it is shown that its mean risk is at most `limit`.

    Thresholds are tested in a fixed order, the safest first, and the first that fails ends the search: so the chance
    that the answer breaks the promise is at most `failure_probability`, however many were tried.

    Args:
        thresholds: candidates, the safest first.
        risks: (n,) risks within [0, 1] of independent examples at a threshold.
        limit: the promised mean risk.
        failure_probability: how often, over draws of the examples, the promise may be broken.

    Returns:
        The threshold, or None where even the safest could not be shown to be safe.
    """
    chosen = None
    for threshold in thresholds:
        if betting_p_value(risks(threshold), limit, failure_probability) > failure_probability:
            break
        chosen = threshold
    return chosen


def betting_p_value(risks: ArrayLike, limit: float, failure_probability: float) -> float:
    """A valid p-value of the hypothesis that the mean of risks within [0, 1] exceeds `limit`.

    A gambler bets, example by example, that the risk lies below the limit, and never more than they have: were the
    hypothesis true, their wealth could hardly ever become large (Ville's inequality). Stakes follow the mean and
    variance seen so far, which is what makes the test sharp where risks vary little.

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
