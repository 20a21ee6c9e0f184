"""The demo runs the whole system and leaves nothing behind, whether it ends by itself or is interrupted."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from own_data import write_own_data
from tiny_checkpoint import write_checkpoint

from event_data.synthetic import NAME
from models.bundle import Bundle
from models.prompt_template import COMPACT

PATIENCE_S = 240
REQUESTS = 40


@pytest.fixture
def folder(tmp_path, tiny_bundle):
    """A demo folder with a bundle in it, so that nothing has to be trained."""
    replace(tiny_bundle, dataset=NAME).save(tmp_path / NAME / "bundle")
    return tmp_path


def start(folder, *options):
    """The demo as a user starts it, in a session of its own."""
    command = [sys.executable, "-m", "cli", "demo", "--requests", str(REQUESTS), "--folder", str(folder), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "COLUMNS": "100"}
    )


def processes_of(folder):
    """Command lines of running processes that have this folder in their environment or arguments."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in told and int(entry.name) != os.getpid():
            found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.slow
def test_the_demo_answers_every_request_and_ends(folder):
    """Every request is answered, the report is written, the status is 0, and no process is left."""
    demo = start(folder)
    said, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, said
    report = json.loads((folder / NAME / "report.json").read_text())
    assert report["requests"] == report["answered"] == REQUESTS
    assert report["lost"] == 0
    assert sum(report["made_by"].values()) == report["candidates"]
    assert list(report["seconds"]) == ["model", "topics", "updater", "worker", "replay"]


@pytest.mark.slow
def test_a_demo_on_pretrained_weights_trains_four_layers_that_read_compact_prompts(tmp_path):
    """More layers, or prompts in words, would take hours on two cores."""
    data = write_own_data(tmp_path, 1_000)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", ["some words to learn", "and some more"], layers=5)
    demo = start(tmp_path / "demo", "--data", str(data), "--backbone", str(checkpoint))
    said, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, said
    [folder] = (tmp_path / "demo").iterdir()
    bundle = Bundle.load(folder / "bundle")
    assert len(bundle.model.backbone.layers) == 4
    assert bundle.template == COMPACT
    assert json.loads((folder / "report.json").read_text())["lost"] == 0
    assert processes_of(folder) == []


@pytest.mark.slow
def test_an_interrupted_demo_leaves_nothing_behind(folder):
    """Ctrl-C in the middle ends the demo and everything it started, without a traceback."""
    demo = start(folder)
    give_up = time.monotonic() + PATIENCE_S
    while not (folder / NAME / "logs" / "worker.log").exists() and time.monotonic() < give_up:
        assert demo.poll() is None, demo.communicate()[0]
        time.sleep(0.2)
    demo.send_signal(signal.SIGINT)
    said, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 130, said
    assert not re.search("Traceback", said)
    assert processes_of(folder) == []


@pytest.mark.slow
def test_a_kept_demo_goes_on_until_interrupted(folder):
    """After the report the same requests come again as new ones and are answered, the live page is there, and Ctrl-C is
    the ordinary end.
    """
    demo = start(folder, "--keep")
    said = ""
    while "the traffic goes on" not in said:
        line = demo.stdout.readline()
        assert line, said
        said += line
    address = re.search(r"live page: (http://\S+/live)", said)[1]
    with urllib.request.urlopen(address, timeout=30) as page:
        assert b"exitstream" in page.read()
    answered, give_up = 0, time.monotonic() + PATIENCE_S
    while answered <= REQUESTS and time.monotonic() < give_up:
        time.sleep(0.2)
        with urllib.request.urlopen(address.replace("/live", "/metrics"), timeout=30) as metrics:
            answered = sum(
                float(line.split()[-1])
                for line in metrics.read().decode().splitlines()
                if line.startswith("exitstream_worker_requests_total")
            )
    assert answered > REQUESTS
    demo.send_signal(signal.SIGINT)
    ended, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, said + ended
    assert "Traceback" not in said + ended
    assert processes_of(folder) == []
