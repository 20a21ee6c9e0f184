"""Work beside a model that serves: how it gives way, and how it ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import pytest
import torch

from worker.beside import LEAST_PRIORITY, NICENESS, beside

CUT_OFF = """
import asyncio, torch
from worker.beside import beside

def multiply(given_up):
    matrix = torch.eye(400)
    while not given_up.is_set():
        matrix = matrix @ matrix

async def main():
    working = asyncio.create_task(beside(multiply, 1, "multiplying"))
    await asyncio.sleep(0.3)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)

asyncio.run(main())
"""


async def test_work_beside_has_low_priority_and_its_own_number_of_threads():
    """The switches between threads are as before once it is over, and so is the priority of all others."""
    interval_s, priority = sys.getswitchinterval(), os.getpriority(os.PRIO_PROCESS, 0)

    def look(_):
        native = threading.get_native_id()
        return os.getpriority(os.PRIO_PROCESS, native) - priority, torch.get_num_threads(), sys.getswitchinterval()

    niceness, threads, within_s = await beside(look, 1, "looking")
    assert (niceness, threads) == (min(NICENESS, LEAST_PRIORITY - priority), 1)
    assert within_s < interval_s
    assert sys.getswitchinterval() == interval_s
    assert os.getpriority(os.PRIO_PROCESS, 0) == priority


async def test_its_errors_are_those_of_who_asked():
    """They are raised where the result is awaited."""

    def fail(_):
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        await beside(fail, 1, "failing")


async def test_cancelled_it_ends_before_those_who_wait_for_it():
    """Work that is given up is over when the cancellation arrives."""
    began, ended = threading.Event(), []

    def work(given_up):
        began.set()
        given_up.wait()
        ended.append(True)

    working = asyncio.create_task(beside(work, 1, "waiting"))
    await asyncio.to_thread(began.wait)
    working.cancel()
    await asyncio.wait([working])
    assert working.cancelled()
    assert ended == [True]


def test_a_program_that_ends_meanwhile_does_not_abort():
    """A thread that is inside torch while the interpreter ends would abort the process."""
    ended = subprocess.run([sys.executable, "-c", CUT_OFF], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
