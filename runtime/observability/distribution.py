"""Distributions of measured values, cheap to observe: values are kept as they come and counted when somebody looks.

prometheus_client's own histogram takes a lock and searches its buckets for every value, which at ten observations per
request cost more than decoding the request. Here an observation appends to a list. The list is counted, all at once,
when it is long, or when the metrics are read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import accumulate

import numpy as np
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

_COUNTED_TOGETHER = 4_096


class Distribution:
    """One distribution: how many values lie up to each bound, and their sum.

    Args:
        bounds: upper bounds of the buckets, ascending; one without end is added.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.array(bounds)
        self._values: list[float] = []
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0
        self._counting = threading.Lock()

    def observe(self, value: float) -> None:
        """Takes in a value. From any thread."""
        self._values.append(value)
        if len(self._values) >= _COUNTED_TOGETHER:
            self._count()

    @contextmanager
    def time(self) -> Iterator[None]:
        """Observes the seconds that the block takes."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - started_s)

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Pairs of bound and number of values up to it, as Prometheus writes them, and the sum of all values."""
        self._count()
        bounds = [*map(repr, self._bounds.tolist()), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts.tolist())), strict=True)), self._sum

    def _count(self) -> None:
        with self._counting:
            size = len(self._values)
            values = np.array(self._values[:size])
            del self._values[:size]  # another thread may have added to its end meanwhile
            places = np.searchsorted(self._bounds, values, side="left")
            self._counts += np.bincount(places, minlength=len(self._counts))
            self._sum += float(values.sum())


class Histogram(Collector):
    """A metric of distributions, one for each combination of label values; without labels it is one itself.

    Args:
        name: whole, as exposed.
        description: for people.
        label_names: of its labels.
        buckets: upper bounds, ascending.
    """

    def __init__(self, name: str, description: str, label_names: Sequence[str], buckets: Sequence[float]) -> None:
        self._name = name
        self._description = description
        self._label_names = tuple(label_names)
        self._buckets = buckets
        self._children: dict[tuple[str, ...], Distribution] = {}
        if not label_names:
            self.labels()  # exposed from the start, without a value

    def labels(self, *values: str) -> Distribution:
        """The distribution of these label values."""
        child = self._children.get(values)
        return self._children.setdefault(values, Distribution(self._buckets)) if child is None else child

    def observe(self, value: float) -> None:
        """Takes in a value, where there are no labels. From any thread."""
        self.labels().observe(value)

    def time(self) -> AbstractContextManager[None]:
        """Observes the seconds that the block takes, where there are no labels."""
        return self.labels().time()

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """See prometheus_client's `Collector`."""
        family = HistogramMetricFamily(self._name, self._description, labels=self._label_names)
        for values, distribution in list(self._children.items()):
            buckets, total = distribution.buckets()
            family.add_metric(values, buckets=buckets, sum_value=total)
        yield family


def bucket_quantile(buckets: Mapping[float, float], share: float) -> float:
    """A quantile of a cumulative histogram, linear within its bucket; NaN of an empty one.

    Args:
        buckets: observations up to each upper bound, infinity included.
        share: which quantile, within [0, 1].
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] == 0:
        return float("nan")
    rank = share * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if bound == float("inf"):
                return lower
            inside = buckets[bound] - below
            return lower + (bound - lower) * ((rank - below) / inside if inside else 1.0)
        lower, below = bound, buckets[bound]
    return lower
