"""The doctor on the embedded broker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from brokers import TestBroker
from doctor_contract import DoctorContract


@pytest.fixture
def broker(embedded_broker, request):
    """The embedded broker, with names of this test's own."""
    return TestBroker(embedded_broker.bootstrap_servers, re.sub(r"\W", "-", request.node.name)[:60])


class TestEmbedded(DoctorContract):
    """Everything that any broker must tell."""


def _doctor(*arguments, **environ):
    return subprocess.run(
        [sys.executable, "-m", "cli", "doctor", *arguments],
        env={**os.environ, **{f"EXITSTREAM_{name}": str(value) for name, value in environ.items()}},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_without_broker_and_bundle_both_are_problems(tmp_path):
    """One does not hide the other; status 1, and every line says what to do."""
    done = _doctor(
        KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1", KAFKA__CONNECT_TIMEOUT_S=1, WORKER__BUNDLE=tmp_path, UPDATER__BUNDLE="x"
    )
    assert done.returncode == 1
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    assert [line.split(":")[0].split(maxsplit=1)[1] for line in problems] == [
        "broker",
        "bundle of the worker",
        "bundle of the updater",
    ]
    assert "127.0.0.1:1" in problems[0]
    assert "exitstream: 3 problems found" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_bundle_that_loads_is_told_in_json(tiny_bundle_folder, tiny_bundle):
    """A list of findings with level, subject, text and advice."""
    done = _doctor(
        "--json",
        KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
        KAFKA__CONNECT_TIMEOUT_S=1,
        WORKER__BUNDLE=tiny_bundle_folder,
        UPDATER__BUNDLE=tiny_bundle_folder,
    )
    findings = {finding["about"]: finding for finding in json.loads(done.stdout)}
    assert findings["broker"]["level"] == "problem"
    assert findings["bundle of the worker"]["level"] == findings["versions"]["level"] == "ok"
    assert tiny_bundle.version in findings["bundle of the updater"]["text"]
