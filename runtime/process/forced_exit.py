"""The last resort at the end of a program: if it does not end by itself in time, says what hangs and ends it."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Final

import structlog

_ASYNCIO: Final = str(Path(asyncio.__file__).parent)
log = structlog.get_logger(__name__)


class ForcedExit:
    """Ends the process with status 1 unless it has been disarmed within a time limit.

    It is a thread of its own: what hangs may be the event loop.

    Args:
        loop: whose tasks are named when they hang.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: threading.Timer | None = None

    def arm(self, limit_s: float) -> None:
        """From now on the process has this long to end, however often it was armed before."""
        self.disarm()
        self._timer = threading.Timer(limit_s, self._exit, [limit_s])
        self._timer.daemon = True
        self._timer.start()

    def disarm(self) -> None:
        """The process has ended by itself, or is not ending at all."""
        if self._timer is not None:
            self._timer.cancel()

    def _exit(self, limit_s: float) -> None:
        try:
            log.error(
                "the program does not end by itself; ending it, what was not committed is done again after the restart",
                limit_s=limit_s,
                tasks=hanging_tasks(self._loop),
                threads=_hanging_threads(),
            )
            sys.stderr.flush()
        finally:
            os._exit(1)


def hanging_tasks(loop: asyncio.AbstractEventLoop) -> list[str]:
    """The unfinished tasks of a loop, each with the line it waits in. From any thread."""
    return sorted(f"{task.get_name()} in {_innermost(task)}" for task in asyncio.all_tasks(loop))


def _innermost(task: asyncio.Task[object]) -> str:
    """Where the innermost coroutine of a task waits, apart from asyncio's own: the outer ones only wait for it."""
    waiting: object = task.get_coro()
    found = None
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None)
        if frame is not None and not frame.f_code.co_filename.startswith(_ASYNCIO):
            found = frame
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
    return _line(found)


def _hanging_threads() -> list[str]:
    frames = sys._current_frames()  # noqa: SLF001 - documented, despite its name
    return [
        f"{thread.name} in {_line(frames.get(thread.ident or 0))}"
        for thread in threading.enumerate()
        if not thread.daemon
    ]


def _line(frame: FrameType | None) -> str:
    return "?" if frame is None else f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
