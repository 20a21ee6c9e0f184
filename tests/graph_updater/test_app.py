"""The program as a user starts it: what goes wrong ends in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def started(*arguments, **environment):
    """The outcome of `python -m graph_updater`."""
    return subprocess.run(
        [sys.executable, "-m", "graph_updater", *arguments],
        cwd=ROOT,
        env={**os.environ, "EXITSTREAM_TELEMETRY__LOG_LEVEL": "error", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"EXITSTREAM_UPDATER__FLUSH": "5"}, "did you mean EXITSTREAM_UPDATER__FLUSH_MS?"),
        ({"EXITSTREAM_UPDATER__BUNDLE": "no/such/bundle"}, "no model bundle in no/such/bundle"),
        ({"EXITSTREAM_CONFIG": "no/such.toml"}, "no/such.toml cannot be read"),
    ],
)
def test_a_mistake_ends_in_one_line(environment, said):
    """Status 1, one line that says what to change, no traceback."""
    outcome = started(**environment)

    assert outcome.returncode == 1
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1


def test_an_unreachable_broker_ends_in_one_line(tiny_bundle_folder, tmp_path):
    """The address and the cause are named."""
    outcome = started(
        EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
        EXITSTREAM_KAFKA__CONNECT_TIMEOUT_S="0.5",
        EXITSTREAM_UPDATER__BUNDLE=str(tiny_bundle_folder),
        EXITSTREAM_UPDATER__SNAPSHOTS=str(tmp_path),
    )

    assert outcome.returncode == 1
    assert "127.0.0.1:1" in outcome.stderr
    assert "is a broker running there?" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_the_updater_starts_without_torch():
    """Nothing that it imports brings seconds of start-up and a quarter of a gigabyte for a model it does not run."""
    code = "import sys, graph_updater.updater; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 0
