"""The end of a program some of whose daemon threads still run.

When a program ends, Python stops such a thread where it next asks for the interpreter, by unwinding its stack. Inside
torch or FAISS this meets functions that cannot be unwound, and the C++ runtime aborts the process: status -6, although
all had been done in order.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakSet

_ENDING_LIMIT_S: Final = 1.0
"""How long threads may take to end by themselves; most have done their work and only clear up."""
_threads: Final[WeakSet[threading.Thread]] = WeakSet()


def note_thread(thread: threading.Thread) -> None:
    """A daemon thread that may still run when the program ends. Before it is started."""
    _threads.add(thread)


@contextmanager
def ending_before_its_threads() -> Iterator[None]:
    """Around all of a program, as the last thing that it does: where noted threads still run at its end, the process
    ends at once, with the same status, instead of in Python's own way.
    """
    try:
        yield
    except SystemExit as end:
        _exit_if_threads_run(end.code)
        raise
    _exit_if_threads_run(None)


def _exit_if_threads_run(code: str | int | None) -> None:
    give_up_at = time.monotonic() + _ENDING_LIMIT_S
    for thread in list(_threads):
        thread.join(max(0.0, give_up_at - time.monotonic()))
    if not any(thread.is_alive() for thread in _threads):
        return
    if isinstance(code, str):  # which Python would print
        sys.stderr.write(f"{code}\n")
    atexit._run_exitfuncs()  # noqa: SLF001 - nothing else runs them before `os._exit`
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
