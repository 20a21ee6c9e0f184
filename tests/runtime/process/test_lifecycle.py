"""Start, drain, stop; background tasks and their owner."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from runtime.errors import DrainTimedOut
from runtime.process.lifecycle import owned_tasks, run_service, unless_stopped, watch_loop_lag


async def for_ever():
    """A background task that ends only by cancellation."""
    await asyncio.Event().wait()


async def test_a_dying_child_ends_the_block_with_its_error():
    """No background task's result is lost, and the error comes out as it is."""

    async def die():
        await asyncio.sleep(0)
        raise ConnectionError("the child's own")

    with pytest.raises(ConnectionError, match="the child's own"):  # noqa: PT012 - the block is what raises
        async with owned_tasks() as spawn:
            spawn(for_ever(), "other")
            spawn(die(), "dying")
            await for_ever()


async def test_children_are_cancelled_and_awaited_at_the_end_of_the_block():
    """Background tasks are cancelled at the end of the block, which waits for their clean-up."""
    cleaned = []

    async def child():
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    async with owned_tasks() as spawn:
        task = spawn(child(), "child")
        await asyncio.sleep(0)
    assert task.cancelled()
    assert cleaned == [True]


async def test_the_blocks_own_error_comes_out_unwrapped():
    """An error for people stays one line, whatever owns the tasks."""
    with pytest.raises(KeyError):  # noqa: PT012 - the block is what raises
        async with owned_tasks() as spawn:
            spawn(for_ever(), "child")
            raise KeyError("mine")


async def test_a_blocked_event_loop_shows_as_lag():
    """Blocking the event loop shows in the measured lag."""
    lags = []
    async with owned_tasks() as spawn:
        spawn(watch_loop_lag(lags.append, interval_s=0.01), "lag")
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.1
        while loop.time() < until:
            pass  # what a computation on the loop does
        await asyncio.sleep(0.05)
    assert max(lags) > 0.05


async def test_work_ends_when_the_program_is_asked_to_stop_before_it_is_done():
    """What takes for ever is cancelled; what is done first gives its result, or its error."""
    stopping, cancelled = asyncio.Event(), []

    async def endless():
        try:
            await for_ever()
        finally:
            cancelled.append(True)

    async def failing():
        raise ValueError("broken")

    assert await unless_stopped(stopping, asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ValueError, match="broken"):
        await unless_stopped(stopping, failing())
    asyncio.get_running_loop().call_later(0.05, stopping.set)
    assert await unless_stopped(stopping, endless()) is None
    assert cancelled == [True]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_drain(number):
    """The main coroutine learns that it should end, finishes, and the run ends in order."""
    finished = []

    async def main(stopping):
        os.kill(os.getpid(), number)
        await stopping.wait()
        await asyncio.sleep(0.01)
        finished.append(True)

    run_service(main)
    assert finished == [True]


def test_a_second_signal_cuts_off():
    """A second signal cancels at once; that is no error."""

    async def main(stopping):
        os.kill(os.getpid(), signal.SIGTERM)
        await stopping.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await for_ever()

    run_service(main, drain_limit_s=60)


def test_draining_has_a_limit():
    """What does not finish in time is cancelled, and the error says what happens to its work."""

    async def main(stopping):
        os.kill(os.getpid(), signal.SIGTERM)
        await stopping.wait()
        await for_ever()

    with pytest.raises(DrainTimedOut, match="done again after the restart"):
        run_service(main, drain_limit_s=0.05)


def test_the_error_of_the_main_coroutine_comes_out():
    """A program that fails does so with its own error."""

    async def main(_):
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        run_service(main)


def test_futures_left_behind_become_log_lines(capsys):
    """An exception that nobody awaited becomes a log line."""

    async def main(_):
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ConnectionError("nobody asked"))
        del future
        await asyncio.sleep(0.01)

    run_service(main)
    assert "never retrieved" in capsys.readouterr().out
