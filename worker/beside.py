"""Work on another model beside one that serves, in a thread of its own that gives way to it."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import faiss
import torch

from runtime.process.daemon_thread import in_daemon_thread

LEAST_PRIORITY: Final = 19
NICENESS: Final = 10
"""By which the thread, and those that torch starts for it, are nicer than the others: they get about a tenth of a
processor that the serving threads keep busy.
"""
SWITCH_INTERVAL_S: Final = 0.00005
"""While such a thread runs. Each call into torch gives the interpreter away; the thread that serves would wait for it
for the usual interval, hundreds of times in every round.
"""
ENDING_LIMIT_S: Final = 8.0
"""How long work that is given up may take until its next look: the longest step is the building of kernels."""
Result = TypeVar("Result")


async def beside(work: Callable[[threading.Event], Result], threads: int, name: str) -> Result:
    """The result of `work`, or what it raises. One at a time.

    Cancelling this sets the event and waits a while for the work to end: a thread inside torch while the interpreter
    ends would abort the process.

    Args:
        work: what to do; between two steps it looks whether it has been given up.
        threads: of torch and FAISS; as many as the serving thread has, for which kernels are built.
        name: of the thread.
    """
    given_up = threading.Event()

    def giving_way() -> Result:
        lower_priority()
        set_thread_counts(threads)
        with _quick_switches():
            return work(given_up)

    working = asyncio.create_task(in_daemon_thread(giving_way, name))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        given_up.set()
        await asyncio.wait([working], timeout=ENDING_LIMIT_S)
        working.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody asks for its outcome
        raise


def set_thread_counts(threads: int) -> None:
    """For the calling thread: torch and FAISS keep these numbers per thread."""
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)


def lower_priority() -> None:
    """For the calling thread, and those that it begins."""
    if sys.platform == "linux":  # where the priority is a thread's own, not the process's
        own = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, own, min(os.getpriority(os.PRIO_PROCESS, own) + NICENESS, LEAST_PRIORITY))


@contextmanager
def _quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
