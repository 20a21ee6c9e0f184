"""`python -m graph_updater [--config FILE]`: the same as `exitstream updater`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from graph_updater.app import run
from graph_updater.settings import load
from runtime.errors import ExitstreamError
from runtime.process.ending import ending_before_its_threads


def main() -> None:
    """Runs the updater; errors end in one line and status 1."""
    parser = argparse.ArgumentParser(prog="graph_updater", description="Interactions in, fresh embeddings out.")
    parser.add_argument("--config", type=Path, help="TOML file; EXITSTREAM_* variables win over it")
    try:
        run(load(parser.parse_args().config))
    except ExitstreamError as error:
        sys.exit(f"graph_updater: {error}")


if __name__ == "__main__":
    with ending_before_its_threads():
        main()
