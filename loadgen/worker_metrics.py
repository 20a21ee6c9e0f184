"""A worker's own figures, read from its /metrics page."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from runtime.observability.distribution import bucket_quantile

PREFIX: Final = "exitstream_worker_"


class WorkerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a replay that only the worker itself knows."""

    token_layer_share: float
    """Token-layers executed, as a share of those at full depth; NaN if nothing was executed."""
    freshness_p50_ms: float
    """From the event time until the effect could be served; NaN if there was no event."""
    freshness_p99_ms: float


def read_figures(page: str) -> WorkerFigures:
    """The figures on a /metrics page in Prometheus' text format."""
    totals: defaultdict[str, float] = defaultdict(float)
    buckets: defaultdict[float, float] = defaultdict(float)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == f"{PREFIX}freshness_seconds_bucket":
                buckets[float(sample.labels["le"])] += sample.value
            elif not sample.name.endswith("_bucket"):
                totals[sample.name.removeprefix(PREFIX)] += sample.value
    full = totals["token_layers_full_total"]
    return WorkerFigures(
        token_layer_share=totals["token_layers_run_total"] / full if full else float("nan"),
        freshness_p50_ms=1000 * bucket_quantile(buckets, 0.5),
        freshness_p99_ms=1000 * bucket_quantile(buckets, 0.99),
    )
