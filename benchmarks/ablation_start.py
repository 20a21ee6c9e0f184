"""Pre-trained against random start: the same layers, tokenizer, prompts and requests."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.bundle_answers import HeadAnswers, head_answers
from benchmarks.random_start import random_start
from evaluation.auc_difference import auc_difference
from event_data.event_log import EventLog
from training.presets import PRETRAINED, Preset
from training.pretrained import PretrainedOptions
from training.progress import Reporter
from training.train import train


def start_figures(
    log: EventLog, options: PretrainedOptions, preset: Preset, most_tested: int, reporter: Reporter
) -> dict[str, Any]:
    """AUC of each head from either start, and what pre-trained weights are worth at full depth.

    Args:
        log: to train on and test with.
        options: the pre-trained weights.
        preset: how many examples, at most; everything else is that for pre-trained weights.
        most_tested: of a longer last tenth, so many of the latest events are scored.
        reporter: shows progress.
    """
    shown = replace(
        PRETRAINED,
        graph=preset.graph,
        most_examples=min(PRETRAINED.most_examples, preset.most_examples),
        most_held_out=min(PRETRAINED.most_held_out, preset.most_held_out),
        seed=preset.seed,
    )
    answers: dict[str, HeadAnswers] = {}
    with tempfile.TemporaryDirectory() as folder:
        starts = {"pretrained": options, "random": random_start(options, Path(folder) / "weights", preset.seed)}
        for name, start in starts.items():
            reporter.say(f"training from a {name} start")
            bundle = train(log, Path(folder) / name, shown, reporter, start)
            answers[name] = head_answers(bundle, log, most_tested)
    one, other = answers["pretrained"], answers["random"]
    difference = auc_difference(one.labels, one.logits[:, -1], other.logits[:, -1], one.users)
    return {
        "backbone": options.where,
        "layers": list(one.exit_layers),
        **{name: told.figures() for name, told in answers.items()},
        "pretrained_minus_random": asdict(difference),
    }
