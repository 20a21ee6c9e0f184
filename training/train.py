"""Trains a bundle from an event log. READ FIRST: `_train` names every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from event_data.event_log import EventLog
from models.bundle import Bundle, require_bundle_folder
from models.calibration import ExitCalibration
from models.exit_model import ExitModel
from models.golden_check import with_golden
from models.graph_base import GraphBase
from models.prompt import PromptBuilder
from models.text import Text
from runtime.process.allocator import keep_freed_memory
from training.calibrate import HeldOut, calibrate
from training.evaluate import evaluate
from training.examples import ExampleSets, graph_end, make_examples
from training.from_pretrained import Start, keep_for, train_from
from training.golden import invented_requests
from training.presets import DEMO, GRADED_HISTORY_LENGTH, PRETRAINED, STANDARD, Preset
from training.pretrained import PretrainedOptions
from training.processes import Processes
from training.progress import Reporter, Silent
from training.shards import Keep
from training.tokenizer import preset_tokenizer
from training.train_exits import new_model, predict, train_exits
from training.train_graph import train_graph


def train(
    log: EventLog,
    out: Path,
    preset: Preset | None = None,
    reporter: Reporter | None = None,
    pretrained: PretrainedOptions | None = None,
) -> Bundle:
    """Train a bundle, evaluate it on the last tenth of the log, save it and return it.

    Args:
        log: a catalogue and events in time order: 80 % to train, 10 % to calibrate, 10 % to evaluate.
        out: folder to write.
        preset: hyperparameters; None takes the preset for logs of this size.
        reporter: shows progress.
        pretrained: weights to start from; None starts from random ones. With them, a training that was interrupted
            goes on from the state in `out/.training`, and of several processes this is the main one (the others call
            `training.from_pretrained.assist`).

    Raises:
        BundleError: the folder cannot be written.
        CheckpointError: pre-trained weights cannot be used, or the kept state is of another training.
        MissingDependency: a package that they take is not installed.
        PromptTemplateError: the prompt's limits of tokens leave no room for its own words.
    """
    preset = preset or preset_for(log, None if pretrained is None else PRETRAINED)
    with computing_on(preset.threads):
        return _train(log, out, preset, reporter or Silent(), pretrained)


@contextmanager
def computing_on(threads: int | None) -> Iterator[None]:
    """Compute with so many threads; None: with as many as before."""
    usual = torch.get_num_threads()
    torch.set_num_threads(threads or usual)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def _train(
    log: EventLog, out: Path, preset: Preset, reporter: Reporter, pretrained: PretrainedOptions | None
) -> Bundle:
    require_bundle_folder(out)
    keep_freed_memory()
    torch.manual_seed(preset.seed)
    _report_skipped(log, reporter)
    start = None if pretrained is None else Start.of(pretrained, Processes())
    keep = _keep(log, preset, out, start)
    text = preset_tokenizer(log.items, preset) if start is None else start.checkpoint.text
    PromptBuilder(text, preset.graph.dim, preset.limits, template=preset.template)  # limits too low for it: told now
    graph = _train_graph(log, text, preset, reporter)
    examples = make_examples(log, graph, text, preset, reporter, keep)
    if start is None:
        model = _train_exits(examples, text, graph, preset, reporter)
    else:
        model = train_from(start, examples, graph.dim, preset, out, reporter)
    if model.is_silent:
        reporter.say(
            "no epoch was better than the regression on the statistics, so every head gives its answer: "
            "train on more examples, or with fewer layers, which serve the same for less"
        )
    calibration = _calibrate(model, examples, preset, reporter)
    bundle = Bundle(model, calibration, graph, text, preset.limits, dataset=log.name, template=preset.template)
    bundle = replace(bundle, metrics=evaluate(bundle, log, reporter, preset.most_tested).figures())
    return with_golden(bundle, invented_requests(log.items, preset.seed)).save(out)


def preset_for(log: EventLog, pretrained: Preset | None = None) -> Preset:
    """The preset for logs of this size, or one for pre-trained weights with the graph of logs of this size; and longer
    histories where events have grades.
    """
    usual = DEMO if len(log.interactions) < 50_000 else STANDARD
    chosen = usual if pretrained is None else replace(pretrained, graph=usual.graph)
    if not any(event.grade is not None for event in log.interactions):
        return chosen
    return replace(chosen, limits=replace(chosen.limits, history_length=GRADED_HISTORY_LENGTH))


def _report_skipped(log: EventLog, reporter: Reporter) -> None:
    if log.skipped:
        reporter.say(f"{log.skipped} lines of {log.name} could not be read; the first: {log.first_skipped}")


def _keep(log: EventLog, preset: Preset, out: Path, start: Start | None) -> Keep:
    """Where training examples are kept; a missing package is told before anything long begins."""
    processes = 1 if start is None else start.processes.count
    return keep_for(min(preset.most_examples, log.split().train_end), preset, out, processes)


def _train_graph(log: EventLog, text: Text, preset: Preset, reporter: Reporter) -> GraphBase:
    with reporter.step("graph: base embeddings", preset.graph.most_steps) as advance:
        end = graph_end(log, preset)
        slice_ = log.interactions[max(0, end - preset.most_graph_events) : end]
        return train_graph(slice_, log.items, text, preset.graph, advance)


def _train_exits(examples: ExampleSets, text: Text, graph: GraphBase, preset: Preset, reporter: Reporter) -> ExitModel:
    options = preset.exits
    model = new_model(options, text.vocabulary_size, graph.dim)
    total = options.epochs * sum(len(example) for example in examples.train)
    with reporter.step("exit heads", total) as advance:
        return train_exits(model, examples.train, examples.to_fit, options, preset.seed, advance, reporter.say)


def _calibrate(model: ExitModel, examples: ExampleSets, preset: Preset, reporter: Reporter) -> ExitCalibration:
    halves = examples.to_fit, examples.to_test
    with reporter.step("calibration", sum(map(len, halves))) as advance:
        to_fit, to_test = (HeldOut.of(half, predict(model, half, advance=advance)) for half in halves)
    return calibrate(to_fit, to_test, model.config.exit_layers, preset.calibration)
