r"""From how many examples on does each further layer pay? On the synthetic world, where examples cost nothing.

A world of every size is made, trained on as `exitstream train` does it, and its last tenth is scored with each head.
Users and items grow with the number of impressions, so that each user and each item is met as often in a small world as
in a large one: what grows is how much there is to learn words and layers from.

    python -m benchmarks.learning_curve --out out/learning-curve.json
    python -m benchmarks.learning_curve --sizes 25000 100000 --backbone smollm2 --layers 8 --out out/learning-curve.json

Keys of the JSON file: `sizes`, and `starts`, by start (`random`, and with `--backbone` `pretrained`) a row per size:
`impressions`, `trained_on`, `exit_layers`, `auc` of each head, `gain` of each further head over the one before it with
its 95 % interval, `limit_auc`, `running_means_auc`, `processor_minutes` (training); and `pays_from`, for each further
layer the smallest number of examples at which its gain is above zero by more than chance. The file is written after
each size: large ones take hours.
"""

from __future__ import annotations

import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.bundle_answers import head_answers
from benchmarks.harness import add_backbone, exit_on_error, finish
from benchmarks.quality import log_figures
from evaluation.baseline import running_means_auc
from event_data.event_log import TRAIN_SHARE, EventLog
from event_data.synthetic import SyntheticSize, synthetic_log
from runtime.errors import ExitstreamError
from runtime.process.allocator import keep_freed_memory
from training.presets import COMPACT_PRETRAINED, DEMO, PRETRAINED, Preset
from training.pretrained import PretrainedOptions
from training.progress import Reporter, reporter_for
from training.train import train

SIZES: Final = (25_000, 100_000, 400_000)
QUICK_SIZES: Final = (4_000, 8_000)
MOST_TESTED: Final = 20_000
RANDOM: Final = DEMO
"""From random weights: the model of small logs, whatever the size."""
STARTED: Final = replace(COMPACT_PRETRAINED, graph=DEMO.graph, most_held_out=PRETRAINED.most_held_out)
"""From pre-trained weights: the graph and the prompts are those of small logs too."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured, and how.

    Attributes:
        sizes: numbers of examples to train on, rising.
        preset: hyperparameters from random weights; limits on the numbers of examples are lifted.
        pretrained: weights to start from as well; None leaves that out.
        pretrained_preset: hyperparameters with them.
    """

    sizes: Sequence[int] = SIZES
    preset: Preset = RANDOM
    pretrained: PretrainedOptions | None = None
    pretrained_preset: Preset = STARTED


def main() -> None:
    """Measure and write down."""
    arguments = _arguments()
    keep_freed_memory()
    sizes = QUICK_SIZES if arguments.quick else tuple(sorted(arguments.sizes))
    pretrained = None if arguments.backbone is None else PretrainedOptions(arguments.backbone, arguments.layers)
    options = Options(sizes, pretrained=pretrained)
    if arguments.epochs is not None:
        options = replace(
            options,
            preset=_with_epochs(options.preset, arguments.epochs),
            pretrained_preset=_with_epochs(options.pretrained_preset, arguments.epochs),
        )
    try:
        for figures in measure(options, reporter_for(Console(stderr=True))):
            finish({**figures, "quick": arguments.quick}, arguments.out)
    except ExitstreamError as error:
        exit_on_error(error)


def _arguments() -> Namespace:
    arguments = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    arguments.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="examples to train on")
    arguments.add_argument("--epochs", type=int, help="epochs of each training; default: those of the preset")
    arguments.add_argument("--quick", action="store_true", help="small worlds: for a first look")
    add_backbone(arguments)
    return arguments.parse_args()


def _with_epochs(preset: Preset, epochs: int) -> Preset:
    return replace(preset, exits=replace(preset.exits, epochs=epochs))


def measure(options: Options, reporter: Reporter) -> Iterator[dict[str, Any]]:
    """The figures so far, after each size: rows of each start."""
    starts: dict[str, tuple[Preset, PretrainedOptions | None]] = {"random": (options.preset, None)}
    if options.pretrained is not None:
        starts["pretrained"] = (options.pretrained_preset, options.pretrained)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in starts}
    for done, size in enumerate(options.sizes, start=1):
        log = world(size)
        for name, (preset, pretrained) in starts.items():
            reporter.say(f"{name} start, {size:,} examples")
            rows[name].append(_row(log, replace(preset, most_examples=size), pretrained, reporter))
        yield {
            "sizes": list(options.sizes[:done]),
            "backbone": None if options.pretrained is None else options.pretrained.where,
            "starts": {name: {"rows": [*told], "pays_from": pays_from(told)} for name, told in rows.items()},
        }


def world(examples: int) -> EventLog:
    """The synthetic world with so many impressions in its training part, and users and items to match."""
    usual = SyntheticSize()
    sessions = round(examples / TRAIN_SHARE / usual.shown)
    times = sessions / usual.sessions
    return synthetic_log(
        replace(
            usual,
            users=max(usual.circles, round(usual.users * times)),
            items=max(usual.shown, round(usual.items * times)),
            sessions=sessions,
        )
    )


def _row(log: EventLog, preset: Preset, pretrained: PretrainedOptions | None, reporter: Reporter) -> dict[str, Any]:
    started_s = time.process_time()
    start = log.split().validation_end
    with tempfile.TemporaryDirectory() as folder:
        bundle = train(log, Path(folder) / "bundle", preset, reporter, pretrained)
        minutes = (time.process_time() - started_s) / 60
        answers = head_answers(bundle, log, MOST_TESTED)
    return {
        "impressions": len(log.interactions),
        "trained_on": min(log.split().train_end, preset.most_examples),
        **answers.figures(),
        "limit_auc": log_figures(log)["limit_auc"],
        "running_means_auc": running_means_auc(log.interactions[:start], log.interactions[start:]),
        "processor_minutes": minutes,
    }


def pays_from(rows: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    """For each exit layer but the first, the smallest number of examples from which on it always gained over the head
    before it by more than chance; None if it never did.
    """
    layers = rows[0]["exit_layers"]
    return {
        str(layer): next(
            (row["trained_on"] for at, row in enumerate(rows) if all(r["gain"][head]["low"] > 0 for r in rows[at:])),
            None,
        )
        for head, layer in enumerate(layers[1:])
    }


if __name__ == "__main__":
    main()
