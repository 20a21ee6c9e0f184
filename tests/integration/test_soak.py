"""The soak as a user runs it: two minutes of random faults, and what is left behind when it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
KEYS = {
    "requests",
    "lost",
    "duplicates",
    "transactions_lost",
    "delivery",
    "faults",
    "recovery_seconds_max",
    "rss_slope_mb_per_hour",
    "fd_slope_per_hour",
    "p99_ms",
}
STEADY = {"at_least_once-steady", "exactly_once-steady", "updater-steady"}


@pytest.fixture
def start(docker_engine, tiny_bundle_folder, tmp_path):  # noqa: ARG001 - skips where there is no Docker
    """Starts the soak on synthetic data; its output goes to `log`."""

    def start_soak(minutes):
        command = [sys.executable, "-m", "benchmarks.soak", "--bundle", tiny_bundle_folder, "--minutes", str(minutes)]
        with (tmp_path / "log").open("wb") as log:
            return subprocess.Popen(
                [*command, "--rate", "5", "--out", tmp_path / "soak.json"], cwd=ROOT, stdout=log, stderr=log
            )

    return start_soak


def test_two_minutes_of_faults(start, tmp_path):
    """Nothing is lost, exactly once nothing comes twice, no program ends of itself, and all of it is told as JSON."""
    assert start(2).wait() == 0, (tmp_path / "log").read_text()
    told = json.loads((tmp_path / "soak.json").read_text())
    assert set(told) >= KEYS
    assert told["requests"] > 500
    assert told["faults"]
    assert {"kind", "at_s", "recovery_s"} <= set(told["faults"][0])
    assert (told["lost"], told["ended_by_themselves"]) == (0, [])
    assert told["duplicates"]["exactly_once"] == 0 or told["transactions_lost"] > 0
    assert told["recovery_seconds_max"] is not None
    assert set(told["delivery"]) == {"at_least_once", "exactly_once"} == set(told["p99_ms"])
    assert set(told["rss_slope_mb_per_hour"]) == set(told["fd_slope_per_hour"]) == STEADY
    assert json.loads((tmp_path / "log").read_text().splitlines()[-1]) == told


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_behind(start, docker_engine, tmp_path, asked):
    """Neither a container nor a process of its own stays, whichever way it is asked to end."""
    before = _containers(docker_engine)
    soak = start(5)
    while "starting the workers" not in (tmp_path / "log").read_text():
        assert soak.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.5)
    children = [child for child in _descendants(soak.pid) if child != soak.pid]
    assert len(children) >= 2
    soak.send_signal(asked)
    assert soak.wait(60) != 0
    assert [child for child in children if _lives(child)] == []
    assert _containers(docker_engine) <= before


def _containers(docker_engine):
    return {container.id for container in docker_engine.containers.list(all=True, filters={"name": "exitstream-"})}


def _descendants(pid):
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            found += _descendants(int(child))
    return found


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
