"""The end of a program some of whose daemon threads still run.

When a program ends, Python stops such a thread where it next asks for the interpreter, by unwinding its stack. Inside
torch or FAISS that meets functions that must not be unwound, and the C++ runtime aborts the process: status -6,
although all had been done in order.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from weakref import WeakSet

INTERRUPTED: Final = 130
"""The exit status that shells use for a command ended by Ctrl-C."""
_ENDING_LIMIT_S: Final = 1.0
"""How long threads may take to end by themselves; most have done their work and only clear up."""
_threads: Final[WeakSet[threading.Thread]] = WeakSet()


def note_thread(thread: threading.Thread) -> None:
    """A daemon thread that has been started and may still run when the program ends."""
    _threads.add(thread)


@contextmanager
def ending_before_its_threads() -> Iterator[None]:
    """Around all of a program, as the last thing that it does: where noted threads still run at its end, the process
    ends at once, with the same status, instead of in Python's own way. What was registered with `atexit` is called;
    threads that are no daemons are not waited for.
    """
    try:
        yield
    except BaseException as error:
        if _threads_run_on():
            _exit_at_once(error)
        raise
    if _threads_run_on():
        _exit_at_once(None)


def _threads_run_on() -> bool:
    give_up_at = time.monotonic() + _ENDING_LIMIT_S
    for thread in list(_threads):
        thread.join(max(0.0, give_up_at - time.monotonic()))
    return any(thread.is_alive() for thread in _threads)


def _exit_at_once(error: BaseException | None) -> None:
    """With the status and the last words that Python would have."""
    status = 1
    try:
        status = _status(error)
        with suppress(OSError, ValueError):  # nobody reads what it writes any more
            _tell(error)
        atexit._run_exitfuncs()  # noqa: SLF001 - nothing else calls them before `os._exit`
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(status)


def _status(error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    return error.code if isinstance(error.code, int) else int(error.code is not None)


def _tell(error: BaseException | None) -> None:
    if not isinstance(error, SystemExit | None):
        sys.excepthook(type(error), error, error.__traceback__)
    elif error is not None and isinstance(error.code, str):
        sys.stderr.write(f"{error.code}\n")
