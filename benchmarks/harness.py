"""What all benchmarks share: their arguments, a Kafka to run on, a trained bundle, and where the figures go."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from event_data.event_log import EventLog
from models.bundle import MANIFEST
from runtime.errors import ExitstreamError
from training.progress import Bars
from training.train import train


def parser(description: str) -> argparse.ArgumentParser:
    """`--data` and `--out`, which every benchmark takes."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--data", type=Path, help="folder of a data set; without: synthetic data")
    arguments.add_argument("--out", type=Path, required=True, help="JSON file for the figures; plots go beside it")
    return arguments


def add_bundle(arguments: argparse.ArgumentParser) -> None:
    """`--bundle`, for what needs a trained model."""
    arguments.add_argument("--bundle", type=Path, help="a trained bundle; without: one is trained once under out/")


def add_bootstrap(arguments: argparse.ArgumentParser) -> None:
    """`--bootstrap`, for what needs Kafka."""
    arguments.add_argument("--bootstrap", help="host:port of a running Kafka; without: one in a container")


def bundle_folder(bundle: Path | None, log: EventLog) -> Path:
    """The bundle asked for, or the one for this log under out/, trained if it is not there."""
    if bundle is not None:
        return bundle
    folder = Path("out") / f"{log.name}-bundle"
    if not (folder / MANIFEST).exists():
        train(log, folder, reporter=Bars(Console(stderr=True)))
    return folder


@contextmanager
def kafka(bootstrap: str | None, cpus: str | None = None) -> Iterator[str]:
    """The address of a broker: the one named, or a container's.

    Args:
        bootstrap: host:port of a running one.
        cpus: the processors that a container may use, as Docker writes them.
    """
    if bootstrap is not None:
        yield bootstrap
        return
    from loadgen.kafka_container import KafkaContainer  # noqa: PLC0415 - needs testcontainers

    with KafkaContainer(cpus=cpus) as container:
        yield container.bootstrap_servers


def finish(figures: Mapping[str, Any], out: Path) -> None:
    """Write the figures and print them as the last line."""
    out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures)
    out.write_text(text + "\n")
    print(text)


def exit_on_error(error: ExitstreamError) -> None:
    """One line and status 1, as the commands do."""
    sys.stderr.write(f"{error}\n")
    raise SystemExit(1) from error
