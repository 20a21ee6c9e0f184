"""The one thread that owns torch, FAISS and the tables, and how the event loop talks to it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

Result = TypeVar("Result")
_IDLE_WAIT_S: Final = 0.1
"""How often an idle thread runs its work all the same: the threshold's way back to base depends on time alone."""


class ComputeThread:
    """Repeats its work while there is any, and runs what is called for between two rounds.

        async with owned_tasks() as spawn:
            spawn(thread.run(), "compute")
            await thread.call(load)        # in the thread
            thread.work = pipeline.infer    # from now on
            thread.wake()                  # there is something to do

    Attributes:
        work: one round; returns whether another one has something to do.
    """

    def __init__(self) -> None:
        self.work: Callable[[], bool] = _nothing
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._awake = threading.Event()
        self._stopping = threading.Event()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Runs until cancelled.

        Raises:
            Exception: what a round raised; the errors of `call` go to its callers.
        """
        executor = ThreadPoolExecutor(1, thread_name_prefix="compute")
        living = self._loop.run_in_executor(executor, self._live)
        try:
            await asyncio.shield(living)
        finally:
            self._stopping.set()
            self._awake.set()
            await asyncio.wait([living])  # the round in progress; the event loop goes on meanwhile
            self._refuse_calls()
            executor.shutdown(wait=False)

    async def call(self, function: Callable[[], Result]) -> Result:
        """Runs a short function in the thread, between two rounds; returns its result or raises its error."""
        waiting: Future[Result] = Future()
        self._calls.append((function, waiting))
        if self._stopping.is_set():
            self._refuse_calls()
        self._awake.set()
        return await asyncio.wrap_future(waiting)

    def wake(self) -> None:
        """Says that there is something to do. From any thread."""
        if not self._awake.is_set():  # setting it takes a lock, each time
            self._awake.set()

    def tell_loop(self, callback: Callable[[], object]) -> None:
        """Runs a callback in the event loop. From the thread; without effect once the loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def _refuse_calls(self) -> None:
        """Cancels what the thread will not answer any more. It may still be taking the last call itself."""
        with suppress(IndexError):
            while True:
                self._calls.popleft()[1].cancel()

    def _live(self) -> None:
        while not self._stopping.is_set():
            self._awake.clear()
            called = self._answer_call()
            if not self.work() and not called and not self._calls:
                self._awake.wait(_IDLE_WAIT_S)

    def _answer_call(self) -> bool:
        """Runs the oldest call; one only, so that many calls do not delay the work."""
        try:
            function, waiting = self._calls.popleft()
        except IndexError:
            return False
        if waiting.set_running_or_notify_cancel():
            try:
                waiting.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it is the caller's, not the thread's
                waiting.set_exception(error)
        return True


def _nothing() -> bool:
    return False
