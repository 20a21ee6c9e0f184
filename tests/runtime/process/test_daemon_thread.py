"""Work in a thread that the program's end does not wait for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runtime.process.daemon_thread import in_daemon_thread


async def test_the_result_comes_back():
    """Of the thread's work."""
    assert await in_daemon_thread(lambda: 6 * 7, "work") == 42


async def test_what_it_raises_is_raised_where_it_is_awaited():
    """As if it had been called there."""

    def work():
        raise KeyError("key")

    with pytest.raises(KeyError):
        await in_daemon_thread(work, "work")


def test_a_program_ends_although_its_work_hangs():
    """Nobody waits for the thread, neither the event loop nor the interpreter."""
    program = """
import asyncio, threading
from runtime.process.daemon_thread import in_daemon_thread
async def main():
    work = asyncio.create_task(in_daemon_thread(threading.Event().wait, "hangs"))
    await asyncio.sleep(0.1)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=30).returncode == 0
