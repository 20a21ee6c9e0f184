r"""What are pre-trained weights worth? The same layers from their weights and from random ones.

Tokenizer, prompts, requests and learning rates are the same, and so are steps, unless one stops early; all weights
train.

    python -m benchmarks.pretrained_start --backbone smollm2 --layers 4 --out out/start-synthetic.json
    python -m benchmarks.pretrained_start --backbone smollm2 --layers 4 --data ../shared/datasets/book-crossing \
        --click-at 8 --out out/start-book-crossing.json
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.bundle_answers import HeadAnswers, head_answers
from benchmarks.harness import add_click_at, exit_on_error, finish, parser
from benchmarks.quality import log_figures
from benchmarks.random_start import random_start
from evaluation.auc_difference import auc_difference
from event_data.event_log import EventLog
from event_data.load import load_log
from event_data.suitability import require_suitable
from runtime.errors import ExitstreamError
from runtime.process.allocator import keep_freed_memory
from training.presets import COMPACT_PRETRAINED, Preset
from training.pretrained import PretrainedOptions
from training.progress import Reporter, reporter_for
from training.train import preset_for, train

MOST_TESTED: Final = 10_000
"""Of a longer last tenth, so many of the latest events are scored."""


def main() -> None:
    """Measure and write down."""
    arguments = _arguments()
    keep_freed_memory()
    options = PretrainedOptions(arguments.backbone, arguments.layers)
    try:
        log = load_log(arguments.data, arguments.click_at)
        require_suitable(log)
        preset = replace(preset_for(log, COMPACT_PRETRAINED), seed=arguments.seed)
        if arguments.examples is not None:
            preset = replace(preset, most_examples=arguments.examples)
        figures = start_figures(log, options, preset, MOST_TESTED, reporter_for(Console(stderr=True)))
    except ExitstreamError as error:
        exit_on_error(error)
    finish({**log_figures(log), **figures}, arguments.out)


def _arguments() -> Namespace:
    arguments = parser("What pre-trained weights are worth: the same layers from them and from random ones.")
    add_click_at(arguments)
    arguments.add_argument("--backbone", required=True, help="a Hugging Face folder, GGUF, or smollm2")
    arguments.add_argument("--layers", type=int, help="decoder layers of it to keep, from the first")
    arguments.add_argument("--examples", type=int, help="candidates to train on")
    arguments.add_argument("--seed", type=int, default=0, help="of both trainings")
    return arguments.parse_args()


def start_figures(
    log: EventLog, options: PretrainedOptions, preset: Preset, most_tested: int, reporter: Reporter
) -> dict[str, Any]:
    """AUC of each head from either start, and what pre-trained weights are worth at full depth.

    Args:
        log: to train on and test with.
        options: the pre-trained weights.
        preset: hyperparameters of both trainings.
        most_tested: of a longer last tenth, so many of the latest events are scored.
        reporter: shows progress.
    """
    answers: dict[str, HeadAnswers] = {}
    with tempfile.TemporaryDirectory() as folder:
        starts = {"pretrained": options, "random": random_start(options, Path(folder) / "weights", preset.seed)}
        for name, start in starts.items():
            reporter.say(f"training from a {name} start")
            bundle = train(log, Path(folder) / name, preset, reporter, start)
            answers[name] = head_answers(bundle, log, most_tested)
    one, other = answers["pretrained"], answers["random"]
    difference = auc_difference(one.labels, one.logits[:, -1], other.logits[:, -1], one.users)
    return {
        "backbone": options.where,
        "layers": list(one.exit_layers),
        **{name: told.figures() for name, told in answers.items()},
        "pretrained_minus_random": asdict(difference),
    }


if __name__ == "__main__":
    main()
