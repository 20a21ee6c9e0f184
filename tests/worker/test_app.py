"""The command of production, when it cannot start."""

from __future__ import annotations

import os
import subprocess
import sys


def _run(**environ):
    return subprocess.run(
        [sys.executable, "-m", "worker"],
        env={**os.environ, **{f"EXITSTREAM_{name}": value for name, value in environ.items()}},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_wrong_setting_ends_in_one_line():
    """It names the key and the closest valid one."""
    outcome = _run(WORKER__BUDGT_MS="5")

    assert outcome.returncode == 1
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert "BUDGET_MS" in outcome.stderr


def test_an_unreachable_broker_ends_in_one_line():
    """It names the address; no traceback."""
    outcome = _run(KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1", KAFKA__CONNECT_TIMEOUT_S="2")

    assert outcome.returncode == 1
    assert "127.0.0.1:1" in outcome.stderr.strip().splitlines()[-1]
    assert "Traceback" not in outcome.stderr
