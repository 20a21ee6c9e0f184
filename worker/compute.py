"""The one thread that owns torch, FAISS and the tables, and the ways into it."""

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
"""An idle thread looks round so often, for what depends on time alone: the threshold's way back to base."""


class ComputeThread:
    """Runs what it is given between two steps of the main work, and steps while there is work.

        async with owned_tasks() as spawn:
            spawn(thread.run(), "compute")
            await thread.call(load)        # in the thread
            thread.work = pipeline.step    # from now on
            thread.wake()                  # there is something to do

    Attributes:
        work: one step of the main work; returns whether there is more to do at once.
    """

    def __init__(self) -> None:
        self.work: Callable[[], bool] = _nothing
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._awake = threading.Event()
        self._stopping = threading.Event()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Lives until cancelled.

        Raises:
            Exception: whatever a step raised; what was called for gets its own errors.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="compute") as executor:
            try:
                await self._loop.run_in_executor(executor, self._live)
            finally:
                self._stopping.set()
                self._awake.set()
                for _, waiting in self._calls:
                    waiting.cancel()

    async def call(self, function: Callable[[], Result]) -> Result:
        """Runs a short function in the thread, between two steps; gives its result or raises its error."""
        waiting: Future[Result] = Future()
        self._calls.append((function, waiting))
        self._awake.set()
        return await asyncio.wrap_future(waiting)

    def wake(self) -> None:
        """Says that there is something to do. From any thread."""
        self._awake.set()

    def tell_loop(self, callback: Callable[[], object]) -> None:
        """Runs a callback in the event loop. From the thread; without effect once the loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def _live(self) -> None:
        while not self._stopping.is_set():
            self._awake.clear()
            called = self._answer_call()
            if not self.work() and not called and not self._calls:
                self._awake.wait(_IDLE_WAIT_S)

    def _answer_call(self) -> bool:
        """Runs the oldest call; one only, so that many do not keep the work from its deadlines."""
        if not self._calls:
            return False
        function, waiting = self._calls.popleft()
        if waiting.set_running_or_notify_cancel():
            try:
                waiting.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it is the caller's, not the thread's
                waiting.set_exception(error)
        return True


def _nothing() -> bool:
    return False
