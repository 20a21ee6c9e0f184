"""The offline commands write down what they show."""

import json
import re
from html import unescape

import msgspec
import pytest

from cli.offline import evaluate_bundle, no_gain
from evaluation.left_out import NOTHING
from event_data.synthetic import SyntheticSize, synthetic_log
from training.left_out import ITEM, KINDS, USER


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
    assert f"{figures['limit_auc']:.4f}" in printed
    assert figures["lead"]["difference"] == pytest.approx(figures["served"]["auc"] - figures["baseline_auc"])
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


def metrics(low, high):
    """A bundle's figures with this interval."""
    return {
        "auc": 0.71234,
        "auc_running_means": 0.71111,
        "auc_over_running_means_low": low,
        "auc_over_running_means_high": high,
    }


def test_a_model_that_beats_nothing_is_told_so():
    """An interval that holds zero names both figures, the interval and what helps, in one line."""
    line = no_gain(metrics(-0.01, 0.012))
    assert "\n" not in line
    for words in ("0.7123", "0.7111", "-0.0100 to +0.0120", "adds nothing", "more events", "check-data"):
        assert words in line


def test_a_model_that_is_better_is_not_warned_of():
    """A difference above chance needs no word."""
    assert no_gain(metrics(0.0001, 0.002)) is None


def test_a_gain_that_cannot_be_judged_is_no_gain():
    """With one user there is no interval, and none is printed."""
    line = no_gain(metrics(float("nan"), float("nan")))
    assert "adds nothing" in line
    assert "nan" not in line


def test_what_is_left_out_is_printed_and_told_in_the_report(tiny_bundle_folder, tmp_path, capsys):
    """A row for each kind of evidence in the table, on the page and in the file, on a small log of one's own."""
    data = folder_of(synthetic_log(SyntheticSize(users=40, items=30, sessions=30, shown=8)), tmp_path / "data")
    out, report = tmp_path / "evaluate.json", tmp_path / "report.html"
    evaluate_bundle(str(tiny_bundle_folder), data, out, report, leave_out=True)
    figures, printed, page = json.loads(out.read_text()), capsys.readouterr().out, report.read_text()
    rows = re.findall(r'<tr><th scope="row">([^<]*)</th><td>([^<]*)</td><td>([^<]*)</td><td>([^<]*)</td></tr>', page)
    names = [point["left_out"] for point in figures["left_out"]]
    assert names == [NOTHING, *KINDS, USER, ITEM]
    assert [unescape(name) for name, *_ in rows if unescape(name) in names] == names
    for point, (_, auc, change, log_loss) in zip(figures["left_out"], rows[-len(names) :], strict=True):
        assert (auc, log_loss) == (f"{point['auc']:.4f}", f"{point['log_loss']:.4f}")
        assert change.startswith(
            "" if point["left_out"] == NOTHING else f"{100 * point['difference']['difference']:+.2f}"
        )
        assert f"{auc}" in printed


def folder_of(log, folder):
    """The log as a team's own files."""
    folder.mkdir()
    for name, rows in (("items", log.items), ("interactions", log.interactions)):
        lines = [msgspec.json.encode(row).decode() for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder
