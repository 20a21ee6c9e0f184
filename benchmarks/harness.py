"""What all benchmarks share: command line arguments, a trained bundle, and the output of the figures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from event_data.event_log import EventLog
from models.bundle import MANIFEST
from runtime.errors import ExitstreamError
from training.progress import reporter_for
from training.train import train


def parser(description: str) -> argparse.ArgumentParser:
    """`--data` and `--out`, which every benchmark takes."""
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, help="folder of a data set; without: synthetic data")
    arguments.add_argument("--out", type=Path, required=True, help="JSON file for the figures; plots go beside it")
    return arguments


def add_bundle(arguments: argparse.ArgumentParser) -> None:
    """`--bundle`, for what needs a trained model."""
    arguments.add_argument("--bundle", type=Path, help="a trained bundle; without: one is trained once under out/")


def add_click_at(arguments: argparse.ArgumentParser) -> None:
    """`--click-at`, for what reads ratings."""
    arguments.add_argument("--click-at", type=float, help="rating from which on a rating is a click")


def add_backbone(arguments: argparse.ArgumentParser) -> None:
    """`--backbone` and `--layers`, for what compares pre-trained weights with a random start."""
    arguments.add_argument("--backbone", help="also start from these weights: a Hugging Face folder, GGUF, or smollm2")
    arguments.add_argument("--layers", type=int, help="decoder layers of them to keep, from the first")


def add_broker(arguments: argparse.ArgumentParser) -> None:
    """`--broker`, for what needs Kafka."""
    arguments.add_argument("--broker", default="docker", help="docker (a container), embedded, or host:port of a Kafka")


def bundle_folder(bundle: Path | None, log: EventLog) -> Path:
    """The given bundle, or else the one for this log under out/, which is trained if it does not exist."""
    if bundle is not None:
        return bundle
    folder = Path("out") / f"{log.name}-bundle"
    if not (folder / MANIFEST).exists():
        train(log, folder, reporter=reporter_for(Console(stderr=True)))
    return folder


def finish(figures: Mapping[str, Any], out: Path) -> None:
    """Write the figures and print them as the last line."""
    out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures)
    out.write_text(text + "\n")
    print(text)


def exit_on_error(error: ExitstreamError) -> None:
    """Print the error as one line and exit with status 1, as the `exitstream` command does."""
    sys.stderr.write(f"{error}\n")
    raise SystemExit(1) from error
