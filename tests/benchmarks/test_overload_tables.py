"""The tables of the overload benchmark put each worker beside its own rival."""

from benchmarks.overload_tables import more, shipped, short


def level(load, auc, **more_figures):
    """One level's figures as in the JSON file."""
    gain = {"difference": 0.0021, "low": 0.0004, "high": 0.0039}
    shares = {"share_confident": 0.81, "share_final": 0.0, "share_deadline": 0.0, "share_graph": 0.19}
    figures = {"answered_share": 1.0, "within_budget_share": 0.9998, "p50_ms": 134.0, "p99_ms": 167.0}
    against = {
        "auc_against_full_depth": {"difference": -0.0013, "low": -0.003, "high": 0.001},
        "auc_against_rival": gain,
    }
    return {"load": load, "mean_exit_layer": 0.8, "auc": auc, **shares, **figures, **against, **more_figures}


FIGURES = {
    "capacity_requests_per_second": 37.71,
    "pages": 412,
    "layers": 6,
    "full_depth": {"auc": 0.7131},
    "graph": {"auc": 0.7081, "auc_against_full_depth": {"difference": -0.005, "low": -0.009, "high": -0.001}},
    "workers": {
        "shipped": {"levels": [level(10.0, 0.7118)]},
        "shipped_fixed": {"levels": [level(10.0, 0.7097, share_graph=0.5, within_budget_share=0.9)]},
    },
    "bursts": {"shipped": {"recovery_seconds": 0.234}, "deep": {"recovery_seconds": None}},
    "backlog": {
        "late_requests": 20_000,
        "late_answered": 20_000,
        "seconds_after_ready": 3.94,
        "fresh": {"within_budget_share": 1.0},
    },
    "idle_rss_mb": 700.0,
    "peak_rss_mb": 879.0,
}


def test_the_short_table_shows_the_shipped_worker_first_then_its_rival():
    """AUC as shipped, AUC of the fixed worker, and their difference with its interval."""
    assert short(FIGURES).splitlines()[-1] == (
        "| 10 × | 100 % | 99.98 % | 0.8 | 0.7118 | 0.7097 | +0.0021 [+0.0004, +0.0039] |"
    )


def test_the_long_tables_name_what_the_rival_did():
    """The second table has the rival's AUC, graph share and share within budget, not the worker's own."""
    own, compared = shipped(FIGURES).split("\n\n")
    assert own.splitlines()[-1] == "| 10 C | 100 % | 99.98 % | 134 / 167 | 0.8 | 81 %, 0 %, 0 %, 19 % |"
    assert "| 0.7097 | 50 % | 90 % | +0.0021 [+0.0004, +0.0039] |" in compared


def test_a_recovery_that_never_came_is_said_in_words():
    """No number stands for a threshold that did not return."""
    assert "0.23 s / not before the load changed again" in more(FIGURES)
