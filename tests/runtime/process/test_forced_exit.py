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
    os.kill(os.getpid(), signal.SIGTERM)
    await stopping.wait()
    {hang}

lifecycle.run_service(main, drain_limit_s=0.1)
"""


@pytest.mark.parametrize(
    ("hang", "named"),
    [
        ("await stubborn()", "main in stubborn"),
        ("task = asyncio.create_task(stubborn(), name='leftover'); await asyncio.sleep(0)", "leftover in stubborn"),
        ("time.sleep(60)", "MainThread in main"),
        ("asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)", "_WorkItem.run"),
    ],
    ids=["ignores its cancellation", "a task left behind", "blocks the event loop", "a thread left behind"],
)
def test_what_does_not_end_in_time_is_named_and_ended_with_status_1(hang, named):
    """Whatever hangs, the supervisor can start the program anew."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(hang=hang)], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert named in ended.stdout + ended.stderr
