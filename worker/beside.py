"""Work on another model beside one that serves, in a thread of its own that gives way to it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import faiss
import torch

from runtime.process.daemon_thread import in_daemon_thread

NICENESS: Final = 10
"""Of the thread and those that torch starts for it: about a tenth of a processor that the serving threads keep busy."""
SWITCH_INTERVAL_S: Final = 0.00005
"""While such a thread runs. Each call into torch gives the interpreter away; the thread that serves would wait for it
for the usual interval, hundreds of times in every round.
"""
Result = TypeVar("Result")


async def beside(work: Callable[[], Result], threads: int, name: str) -> Result:
    """The result of `work`, or what it raises. One at a time; cancelling this does not stop it.

    Args:
        work: what to do.
        threads: of torch and FAISS; as many as the serving thread has, for which kernels are built.
        name: of the thread.
    """

    def giving_way() -> Result:
        _lower_priority()
        set_thread_counts(threads)
        with _quick_switches():
            return work()

    return await in_daemon_thread(giving_way, name)


def set_thread_counts(threads: int) -> None:
    """For the calling thread: torch and FAISS keep these numbers per thread."""
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)


def _lower_priority() -> None:
    if sys.platform == "linux":  # where the priority is a thread's own, not the process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


@contextmanager
def _quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
