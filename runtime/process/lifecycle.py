"""Start, drain, stop.

SIGTERM or SIGINT asks a program to finish its work in flight; a second one, or the time limit, cancels it. What does
not even end by that is named in the log and ended with the process, with status 1 (`runtime.process.forced_exit`).

    async def main(stopping: asyncio.Event) -> None:
        async with owned_tasks() as spawn:
            spawn(delivery.run(), "commits")
            while not stopping.is_set():
                ...
            # drain: stop reading, finish, deliver, commit, leave the group

    run_service(main, drain_limit_s=20)
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import structlog

from runtime.errors import DrainTimedOut
from runtime.process.forced_exit import ForcedExit

T = TypeVar("T")
Main = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
_CLOSING_LIMIT_S: Final = 5.0
"""How long everything may take to end once it was cancelled."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
log = structlog.get_logger(__name__)


def run_service(main: Main, drain_limit_s: float = 20.0) -> None:
    """Runs a program's main coroutine on uvloop (where there is one) until it ends or has drained.

    Args:
        main: gets an event that is set when the program should drain and end.
        drain_limit_s: how long it may take to end from then on.

    Raises:
        DrainTimedOut: if it took longer.
        Exception: what `main` raises.
    """
    forced_exit: ForcedExit | None = None
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            forced_exit = ForcedExit(runner.get_loop())
            try:
                runner.run(_supervised(main, drain_limit_s, forced_exit))
            finally:
                forced_exit.arm(_CLOSING_LIMIT_S)  # leaving the block ends other tasks and threads, without a limit
    finally:
        if forced_exit is not None:
            forced_exit.disarm()


@asynccontextmanager
async def owned_tasks() -> AsyncIterator[Spawn]:
    """Background tasks with an owner: when one fails the block is cancelled and raises its error; at the end of the
    block all of them are cancelled and awaited.

    Unlike a bare TaskGroup it raises the first error itself, so that an error for users stays one line.
    """
    children: set[asyncio.Task[None]] = set()
    try:
        async with asyncio.TaskGroup() as group:

            def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
                child = group.create_task(work, name=name)
                children.add(child)
                child.add_done_callback(children.discard)
                return child

            try:
                yield spawn
            finally:
                for child in children:
                    child.cancel()
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors


async def unless_stopped(stopping: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of the work, or None, with the work cancelled, if the program is asked to stop before it is done."""
    working, asked = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([working, asked], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, asked):
            task.cancel()
        await asyncio.gather(working, asked, return_exceptions=True)


async def watch_loop_lag(observe: Callable[[float], None], interval_s: float = 0.1) -> None:
    """Measures, until cancelled, how many seconds late the event loop wakes this task: blocking it shows here."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        observe(max(0.0, loop.time() - due))


async def _supervised(main: Main, drain_limit_s: float, forced_exit: ForcedExit) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_loop_error)
    stopping = asyncio.Event()
    work = asyncio.create_task(main(stopping), name="main")

    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            log.warning("stopping at once", signal=number.name)
            forced_exit.arm(_CLOSING_LIMIT_S)
            work.cancel()
        else:
            log.info("draining", signal=number.name, limit_s=drain_limit_s)
            forced_exit.arm(drain_limit_s + _CLOSING_LIMIT_S)
            stopping.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        await _until_done(work, stopping, drain_limit_s)
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def _until_done(work: asyncio.Task[None], stopping: asyncio.Event, drain_limit_s: float) -> None:
    asked = asyncio.create_task(stopping.wait(), name="until asked to stop")
    try:
        await asyncio.wait([work, asked], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            await asyncio.wait([work], timeout=drain_limit_s)
        if not work.done():
            work.cancel()
            await asyncio.wait([work])  # bounded by the forced exit
            raise DrainTimedOut(
                f"work in flight did not finish within {drain_limit_s:g} s (telemetry.drain_limit_s); "
                "what was not committed is done again after the restart"
            )
        await _result(work)
    finally:
        asked.cancel()
        await asyncio.wait([asked])
        if not work.done():
            work.cancel()
            await asyncio.wait([work])


async def _result(work: Awaitable[None]) -> None:
    """Raises the task's error; cancellation by a second signal is the user's wish, not an error."""
    try:
        await work
    except asyncio.CancelledError:
        log.warning("cut off")


def _log_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs errors that nobody awaited. aiokafka leaves futures of a failed producer behind, reported or not."""
    error = context.get("exception")
    if error is not None and type(error).__module__.startswith("aiokafka."):
        log.debug(context["message"], cause=repr(error))
    else:
        log.error(context["message"], exc_info=error)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - there is none for Windows

    return uvloop.new_event_loop
