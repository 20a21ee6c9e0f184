"""Figures are read off a metrics page as Prometheus itself would read them."""

import math

import pytest

from loadgen.worker_metrics import read_figures
from runtime.observability.distribution import bucket_quantile

PAGE = """# TYPE exitstream_worker_token_layers_run counter
exitstream_worker_token_layers_run_total 250.0
# TYPE exitstream_worker_token_layers_full counter
exitstream_worker_token_layers_full_total 1000.0
# TYPE exitstream_worker_freshness_seconds histogram
exitstream_worker_freshness_seconds_bucket{kind="user",le="0.1"} 50.0
exitstream_worker_freshness_seconds_bucket{kind="user",le="0.2"} 100.0
exitstream_worker_freshness_seconds_bucket{kind="user",le="+Inf"} 100.0
exitstream_worker_freshness_seconds_count{kind="user"} 100.0
exitstream_worker_freshness_seconds_sum{kind="user"} 10.0
"""


def test_shares_and_quantiles_are_read_off_a_page():
    """Token-layers become a share, histogram buckets become milliseconds."""
    figures = read_figures(PAGE)
    assert figures.token_layer_share == pytest.approx(0.25)
    assert figures.freshness_p50_ms == pytest.approx(100.0)
    assert figures.freshness_p99_ms == pytest.approx(198.0)


def test_a_worker_that_did_nothing_has_no_figures():
    """An empty page gives NaN, not an error and not a zero."""
    figures = read_figures("")
    assert math.isnan(figures.token_layer_share)
    assert math.isnan(figures.freshness_p99_ms)


def test_what_lies_beyond_the_last_bound_is_reported_as_that_bound():
    """Beyond the last finite bucket only its bound is known."""
    assert bucket_quantile({0.1: 0.0, float("inf"): 10.0}, 0.5) == 0.1
