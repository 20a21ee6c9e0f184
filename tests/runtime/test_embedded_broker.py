"""The embedded broker's process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.embedded_broker import EmbeddedBroker
from runtime.errors import MissingDependency
from runtime.kafka import probe
from runtime.settings import KafkaSettings

pytest.importorskip("confluent_kafka", reason="the embedded broker needs exitstream[demo]")


PARENT = """
import time
from runtime.embedded_broker import EmbeddedBroker
broker = EmbeddedBroker()
broker.start()
print(broker._process.pid, flush=True)
time.sleep(60)
"""


def is_running(pid):
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid):
    """Gives the process a moment to end."""
    for _ in range(200):
        if not is_running(pid):
            return True
        time.sleep(0.05)
    return False


async def test_it_answers_on_loopback_and_ends_with_its_block():
    """The broker runs inside the block, and its process ends with it."""
    with EmbeddedBroker() as broker:
        assert broker.bootstrap_servers.startswith("127.0.0.1:")
        await probe(KafkaSettings(bootstrap_servers=broker.bootstrap_servers))
        pid = broker._process.pid
    assert wait_until_gone(pid)
    broker.stop()  # a second time does nothing


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks at processes through /proc")
def test_it_does_not_outlive_a_killed_parent():
    """However the parent ends, no process is left behind."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    parent.wait()
    assert wait_until_gone(pid)


def test_without_the_package_the_line_names_the_extra(monkeypatch):
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(MissingDependency, match=r"exitstream\[demo\]"):
        EmbeddedBroker().start()
