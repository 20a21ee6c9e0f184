"""The command of production, when it cannot start."""

from __future__ import annotations

import os
import signal
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


def test_asked_to_stop_while_it_waits_for_the_broker_it_ends_in_order():
    """Nothing has begun by then, so nothing has to be waited for."""
    environment = {**os.environ, "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    with subprocess.Popen(
        [sys.executable, "-m", "worker"], env=environment, stderr=subprocess.PIPE, text=True
    ) as worker:
        for line in worker.stderr:
            if "waiting for the broker" in line:
                break
        worker.send_signal(signal.SIGTERM)
        _, rest = worker.communicate(timeout=15)

    assert worker.returncode == 0, rest
