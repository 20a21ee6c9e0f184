"""What lets layers learn from words? The built-in world's preset, with one thing changed at a time.

    python -m benchmarks.what_lets_layers_learn [--variant NAME …] [--out FILE]

Trains a bundle for each variant (about three minutes each on two cores) and prints the AUC of each head on the last
tenth of the log.
"""

from __future__ import annotations

import json
import tempfile
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks import markdown
from event_data.event_log import EventLog
from event_data.synthetic import synthetic_log
from models.prompt_template import TERSE
from training.presets import DEMO, Preset
from training.train import train

VARIANTS: Final[dict[str, Preset]] = {
    "as shipped": DEMO,
    "small weights at the start": replace(DEMO, exits=replace(DEMO.exits, initial_std=0.02)),
    "a token a word": replace(DEMO, template=TERSE),
    "no titles in the past": replace(DEMO, limits=replace(DEMO.limits, title_tokens=0, similar_title_tokens=0)),
}
"""What is tried, by name."""


def main() -> None:
    """Train and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="only these; may be given several times")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    log = synthetic_log()
    figures = {}
    for name in arguments.variant or VARIANTS:
        figures[name] = measure(log, VARIANTS[name])
        print(f"{name}: {figures[name]}", flush=True)
    print(table(figures))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(figures, indent=1))


def measure(log: EventLog, preset: Preset) -> dict[str, float]:
    """The figures of a bundle that is trained with a preset."""
    with tempfile.TemporaryDirectory() as folder:
        return dict(train(log, Path(folder), preset).metrics)


def table(figures: dict[str, dict[str, Any]]) -> str:
    """A row for each variant."""
    names = [f"auc_layer_{layer}" for layer in DEMO.exits.exit_layers[:-1]] + ["auc_full_depth"]
    header = ["variant", *(f"layer {layer}" for layer in DEMO.exits.exit_layers), "token-layers executed"]
    body = [
        [variant, *(f"{told[name]:.4f}" for name in names), f"{100 * told['token_layer_share']:.0f} %"]
        for variant, told in figures.items()
    ]
    return markdown.table(header, body)


if __name__ == "__main__":
    main()
