"""Programs as child processes: what ends of itself is told, what is asked to end does, even when frozen."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from loadgen.processes import Processes, ProcessFailed, Program, free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def processes(tmp_path, tiny_bundle_folder):
    """Children whose broker cannot be reached, which they wait for."""
    environment = {
        "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
        "EXITSTREAM_KAFKA__CONNECT_TIMEOUT_S": "60",
        "EXITSTREAM_UPDATER__BUNDLE": str(tiny_bundle_folder),
        "EXITSTREAM_TELEMETRY__DRAIN_LIMIT_S": "1",
    }
    with Processes(environment, tmp_path) as processes:
        yield processes


def wait_until(condition):
    """Polls until something is so."""
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


def test_what_ends_of_itself_is_told_with_its_last_words(processes):
    """Its status and the last line of its log; a check raises it. What was asked to end is not among them."""
    processes.start(Program("wrong", ["no-such-command"]))
    wait_until(processes.ended)
    assert set(processes.ended()) == {"wrong"}
    assert "ended with status 2" in processes.ended()["wrong"]
    with pytest.raises(ProcessFailed, match="wrong ended with status 2"):
        processes.check()


def test_a_killed_program_is_forgotten_and_its_log_goes_on(processes, tmp_path):
    """It can be started again under its name; the log keeps what it said before."""
    program = Program("updater", ["updater"])
    log = tmp_path / "updater.log"
    for round_ in (1, 2):
        processes.start(program)
        assert processes.is_running("updater")
        wait_until(lambda round_=round_: log.read_text().count("waiting for the broker") == round_)
        assert not processes.is_ready("updater")
        processes.kill("updater")
        assert not processes.is_running("updater")
        assert processes.ended() == {}


def test_a_frozen_program_is_asked_to_end_too(processes, tmp_path):
    """It is woken up to hear of it, instead of being killed when patience ends."""
    processes.start(Program("updater", ["updater"]))
    wait_until(lambda: "waiting for the broker" in (tmp_path / "updater.log").read_text())
    _, process = processes._running["updater"]
    processes.send("updater", signal.SIGSTOP)
    processes.stop()
    assert process.returncode not in (None, -signal.SIGKILL)


def test_nothing_is_started_once_the_block_has_ended(tmp_path):
    """A start that comes late, from a thread that was not waited for, leaves no process behind."""
    with Processes({}, tmp_path) as processes:
        pass
    with pytest.raises(ProcessFailed, match="have been stopped"):
        processes.start(Program("late", ["updater"]))


def test_waiting_for_a_program_ends_with_it(processes):
    """What was stopped by another thread is not waited for."""
    processes.start(Program("updater", ["updater"]))
    stopping = threading.Timer(1.0, processes.stop)
    stopping.start()
    with pytest.raises(ProcessFailed, match="was stopped before it was ready"):
        processes.wait_ready(60.0)
    stopping.join()
