"""`exitstream train` and `exitstream evaluate`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cli.evaluation_report.file import write_report
from cli.evaluation_report.words import freshness_words, lost, ways
from cli.preset_options import PresetChanges
from event_data.event_log import EventLog
from event_data.load import load_log
from event_data.suitability import require_suitable
from models.bundle import MANIFEST, Bundle, read_manifest
from models.bundle_store import resolve
from runtime.errors import BundleError
from training.evaluate import Evaluation, evaluate
from training.freshness import with_freshness
from training.from_pretrained import assist
from training.left_out import with_left_out
from training.presets import COMPACT_PRETRAINED, PRETRAINED
from training.pretrained import PretrainedOptions
from training.processes import Processes, require_single_process
from training.progress import reporter_for
from training.train import preset_for, train


def assists_training(out: Path, pretrained: PretrainedOptions | None) -> bool:
    """Whether this is one of several processes and not the main one; if so, it has taken part when this returns.

    Raises:
        CheckpointError: pre-trained weights cannot be used, or several processes were started without them.
        MissingDependency: a package that they take is not installed.
    """
    if pretrained is None:
        require_single_process()
        return False
    processes = Processes()
    if not processes.is_main:
        assist(pretrained, out, processes)
    return not processes.is_main


def train_bundle(
    log: EventLog,
    out: Path,
    pretrained: PretrainedOptions | None = None,
    changes: PresetChanges | None = None,
) -> None:
    """Train and save a bundle, from random or pre-trained weights; show its figures on the held-out tenth.

    Args:
        log: to train on.
        out: folder to write.
        pretrained: weights to start from; None: random ones.
        changes: of the preset.

    Raises:
        CheckpointError: pre-trained weights cannot be used.
        DatasetError: the log is not enough to train on.
        MissingDependency: a package that they take is not installed.
        PromptTemplateError: the prompt is unknown, or its file malformed.
    """
    preset = preset_for(log, None if pretrained is None else PRETRAINED)
    preset = (changes or PresetChanges()).of(preset)
    require_suitable(log)
    console = Console(highlight=False)
    bundle = train(log, out, preset, reporter_for(console), pretrained)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in bundle.metrics.items() if name != "events")
    console.print(f"bundle {out}, model version {bundle.version}")
    console.print(f"last tenth of the log: {figures}")
    _warn_of_no_gain(bundle.metrics, console)


def evaluate_bundle(
    bundle: str,
    data: Path | None,
    out: Path | None,
    report: Path | None = None,
    *,
    click_at: float | None = None,
    refresh: bool = False,
    leave_out: bool = False,
) -> None:
    """Show how good a bundle is on the last tenth of a log.

    Args:
        bundle: its address.
        data: the data set's folder; None for the synthetic one.
        out: file for the figures as JSON.
        report: file for a page that tells them to a reader.
        click_at: the rating from which one is a click; None: as the data set has it.
        refresh: whether to score with staler state as well.
        leave_out: whether to score without each kind of evidence as well.
    """
    console = Console(highlight=False)
    loaded, log = Bundle.load(resolve(bundle)), load_log(data, click_at)
    evaluation = evaluate(loaded, log, reporter_for(console))
    if refresh:
        evaluation = with_freshness(evaluation, loaded, log, reporter_for(console))
    if leave_out:
        evaluation = with_left_out(evaluation, loaded, log, reporter_for(console))
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
    if evaluation.left_out:
        console.print(_left_out_table(evaluation))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(asdict(evaluation), indent=1) + "\n")
    if report is not None:
        write_report(evaluation, loaded, log, report)
        console.print(f"report: {report}")


def reuse_or_train(log: EventLog, folder: Path, console: Console, pretrained: PretrainedOptions | None = None) -> Path:
    """The bundle in the folder if it is valid and was trained on this log; otherwise train one there. Pre-trained
    weights read compact prompts of the latest examples.
    """
    if (folder / MANIFEST).exists():
        try:
            Bundle.load(folder)
            if read_manifest(folder).dataset == log.name:
                return folder
            console.print(f"{folder} was trained on other data; training again")
        except BundleError as error:
            console.print(f"{error}; training again")
    require_suitable(log)
    preset = preset_for(log, None if pretrained is None else COMPACT_PRETRAINED)
    bundle = train(log, folder, preset, reporter_for(console), pretrained)
    _warn_of_no_gain(bundle.metrics, console)
    return folder


def _warn_of_no_gain(metrics: Mapping[str, float], console: Console) -> None:
    line = no_gain(metrics)
    if line is not None:
        console.print(line, markup=False, soft_wrap=True)


def no_gain(metrics: Mapping[str, float]) -> str | None:
    """One line if a trained bundle's figures do not show that the model ranks better than running click rates do."""
    low = metrics.get("auc_over_running_means_low", math.nan)
    high = metrics.get("auc_over_running_means_high", math.nan)
    if low > 0:
        return None
    served, means = metrics["auc"], metrics["auc_running_means"]
    interval = "" if math.isnan(low) else f" (95 % interval of the difference {low:+.4f} to {high:+.4f})"
    return (
        f"on the last tenth the model as served has an AUC of {served:.4f}, the running click rates of user and item "
        f"alone {means:.4f}{interval}: on this data the model adds nothing yet that can be told from chance; "
        "what helps is more events, titles and attributes of the items, and what `exitstream check-data` finds"
    )


def _quality_table(evaluation: Evaluation) -> Table:
    table = Table("scored by", "AUC", "log loss", "calibration error", title=f"{evaluation.events} events, as of each")
    for name, quality in ways(evaluation):
        table.add_row(name, f"{quality.auc:.4f}", f"{quality.log_loss:.4f}", f"{quality.calibration_error:.4f}")
    table.add_row("running means", f"{evaluation.baseline_auc:.4f}", "", "")
    if evaluation.limit_auc is not None:
        table.add_row("limit: the world's own probabilities", f"{evaluation.limit_auc:.4f}", "", "")
    return table


def _freshness_table(evaluation: Evaluation) -> Table:
    table = Table("state refreshed", "AUC", "log loss")
    for point in evaluation.freshness:
        table.add_row(point.refreshed, f"{point.auc:.4f}", f"{point.log_loss:.4f}")
    return table


def _left_out_table(evaluation: Evaluation) -> Table:
    table = Table("left out", "AUC", "change, 95 % interval", "log loss")
    for point in evaluation.left_out:
        table.add_row(point.left_out, f"{point.auc:.4f}", lost(point), f"{point.log_loss:.4f}")
    return table
