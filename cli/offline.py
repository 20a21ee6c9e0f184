"""`exitstream train` and `exitstream evaluate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cli.evaluation_report.file import write_report
from cli.evaluation_report.words import freshness_words, ways
from event_data.event_log import EventLog
from event_data.load import load_log
from event_data.suitability import require_suitable
from models.bundle import MANIFEST, Bundle, read_manifest
from models.bundle_store import resolve
from runtime.errors import BundleError
from training.evaluate import Evaluation, evaluate
from training.freshness import with_freshness
from training.progress import reporter_for
from training.train import train


def train_bundle(log: EventLog, out: Path) -> None:
    """Train and save a bundle; show its figures on the held-out tenth.

    Raises:
        DatasetError: the log is not enough to train on.
    """
    require_suitable(log)
    console = Console(highlight=False)
    bundle = train(log, out, reporter=reporter_for(console))
    figures = ", ".join(f"{name} {value:.4f}" for name, value in bundle.metrics.items() if name != "events")
    console.print(f"bundle {out}, model version {bundle.version}")
    console.print(f"last tenth of the log: {figures}")


def evaluate_bundle(
    bundle: str, data: Path | None, out: Path | None, report: Path | None = None, *, refresh: bool = False
) -> None:
    """Show how good a bundle is on the last tenth of a log.

    Args:
        bundle: its address.
        data: the data set's folder; None for the synthetic one.
        out: file for the figures as JSON.
        report: file for a page that tells them to a reader.
        refresh: whether to score with staler state as well.
    """
    console = Console(highlight=False)
    loaded, log = Bundle.load(resolve(bundle)), load_log(data)
    evaluation = evaluate(loaded, log, reporter_for(console))
    if refresh:
        evaluation = with_freshness(evaluation, loaded, log, reporter_for(console))
    console.print(_quality_table(evaluation))
    exits = zip(evaluation.exit_layers, evaluation.exit_shares, strict=True)
    console.print(
        f"at the base threshold {evaluation.base_threshold:.3f}: exits by layer "
        + "  ".join(f"{layer}: {share:.1%}" for layer, share in exits)
        + f"; token-layers executed {evaluation.token_layer_share:.1%}"
    )
    if evaluation.freshness:
        console.print(_freshness_table(evaluation))
        console.print(freshness_words(evaluation))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(asdict(evaluation), indent=1) + "\n")
    if report is not None:
        write_report(evaluation, loaded, log, report)
        console.print(f"report: {report}")


def reuse_or_train(log: EventLog, folder: Path, console: Console) -> Path:
    """The bundle in the folder if it is valid and was trained on this log; otherwise train one there."""
    if (folder / MANIFEST).exists():
        try:
            Bundle.load(folder)
            if read_manifest(folder).dataset == log.name:
                return folder
            console.print(f"{folder} was trained on other data; training again")
        except BundleError as error:
            console.print(f"{error}; training again")
    require_suitable(log)
    train(log, folder, reporter=reporter_for(console))
    return folder


def _quality_table(evaluation: Evaluation) -> Table:
    table = Table("scored by", "AUC", "log loss", "calibration error", title=f"{evaluation.events} events, as of each")
    for name, quality in ways(evaluation):
        table.add_row(name, f"{quality.auc:.4f}", f"{quality.log_loss:.4f}", f"{quality.calibration_error:.4f}")
    table.add_row("running means", f"{evaluation.baseline_auc:.4f}", "", "")
    return table


def _freshness_table(evaluation: Evaluation) -> Table:
    table = Table("state refreshed", "AUC", "log loss")
    for point in evaluation.freshness:
        table.add_row(point.refreshed, f"{point.auc:.4f}", f"{point.log_loss:.4f}")
    return table
