"""A program that does not end by itself is ended, and the log says what hung."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, signal, threading, time
from runtime.process import lifecycle

lifecycle._CLOSING_LIMIT_S = 0.5

async def stubborn():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

async def main(stopping):
    if {asked}:
        os.kill(os.getpid(), signal.SIGTERM)
        await stopping.wait()
    {hang}

lifecycle.run_service(main, drain_limit_s=0.1)
"""


LEFTOVER = "task = asyncio.create_task(stubborn(), name='leftover'); await asyncio.sleep(0)"


@pytest.mark.parametrize(
    ("asked", "hang", "named"),
    [
        (True, "await stubborn()", "main in stubborn"),
        (True, "time.sleep(60)", "MainThread in main"),
        (False, LEFTOVER, "leftover in stubborn"),
        (False, "asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)", "_WorkItem.run"),
    ],
    ids=["ignores its cancellation", "blocks the event loop", "a task left behind", "a thread left behind"],
)
def test_what_does_not_end_in_time_is_named_and_ended_with_status_1(asked, hang, named):
    """Whatever hangs, asked to end or at an end of its own, the supervisor can start the program anew."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(asked=asked, hang=hang)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert named in ended.stdout + ended.stderr
