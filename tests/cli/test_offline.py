"""The offline commands write down what they show."""

import json

import pytest

from cli.offline import evaluate_bundle


@pytest.mark.slow
def test_evaluate_writes_every_figure_that_it_prints(tiny_bundle_folder, tmp_path, capsys):
    """The JSON file holds the quality of each way of scoring, as printed, and the exits."""
    out = tmp_path / "figures" / "evaluate.json"
    report = tmp_path / "pages" / "report.html"
    evaluate_bundle(str(tiny_bundle_folder), None, out, report, refresh=True)
    figures, printed = json.loads(out.read_text()), capsys.readouterr().out
    for quality in (figures["served"], *figures["heads"], figures["graph"]):
        assert f"{quality['auc']:.4f}" in printed
        assert f"{quality['log_loss']:.4f}" in printed
    assert f"{figures['baseline_auc']:.4f}" in printed
    assert sum(figures["exit_shares"]) == pytest.approx(1.0)
    assert_details_agree(figures)
    for point in (figures["served"], *figures["freshness"]):
        assert f"{point['auc']:.4f}" in printed
        assert f"{point['auc']:.4f}" in report.read_text()
    assert len(figures["freshness"]) == 5
    assert str(report) in printed.replace("\n", "")


def assert_details_agree(figures):
    """Reliability tells the calibration errors of the table; the frontier passes through what is served."""
    for head, told in zip(figures["heads"], figures["head_reliability"], strict=True):
        assert told["calibration_error"] == pytest.approx(head["calibration_error"])
        assert sum(part["events"] for part in told["bins"]) == figures["events"]
    left = [told["events"] for told in figures["exit_reliability"]]
    assert [count / figures["events"] for count in left] == pytest.approx(figures["exit_shares"])
    (base,) = [point for point in figures["frontier"] if point["threshold"] == figures["base_threshold"]]
    assert base["auc"] == pytest.approx(figures["served"]["auc"], abs=1e-3)
    assert base["log_loss"] == pytest.approx(figures["served"]["log_loss"], abs=1e-3)
    assert base["token_layer_share"] == pytest.approx(figures["token_layer_share"], abs=1e-2)
    full = figures["frontier"][-1]
    assert full["token_layer_share"] == pytest.approx(1.0)
    assert full["auc"] == pytest.approx(figures["heads"][-1]["auc"])
