"""The offline commands write down what they show."""

import json

import pytest

from cli.offline import evaluate_bundle


@pytest.mark.slow
def test_evaluate_writes_every_figure_that_it_prints(tiny_bundle_folder, tmp_path, capsys):
    """The JSON file holds the quality of each way of scoring, as printed, and the exits."""
    out = tmp_path / "figures" / "evaluate.json"
    evaluate_bundle(str(tiny_bundle_folder), None, out)
    figures, printed = json.loads(out.read_text()), capsys.readouterr().out
    for quality in (figures["served"], *figures["heads"], figures["graph"]):
        assert f"{quality['auc']:.4f}" in printed
        assert f"{quality['log_loss']:.4f}" in printed
    assert f"{figures['baseline_auc']:.4f}" in printed
    assert sum(figures["exit_shares"]) == pytest.approx(1.0)
