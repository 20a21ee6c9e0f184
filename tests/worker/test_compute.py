"""The one thread that owns the numeric libraries."""

from __future__ import annotations

import asyncio
import threading

import pytest

from runtime.process.lifecycle import owned_tasks
from worker.compute import ComputeThread


async def test_calls_and_steps_run_in_one_thread_of_their_own():
    """So that what it owns needs no lock."""
    threads = set()
    thread = ComputeThread()
    stepped = asyncio.Event()

    def step():
        threads.add(threading.get_ident())
        thread.tell_loop(stepped.set)
        return False

    async with owned_tasks() as spawn:
        spawn(thread.run(), "compute")
        threads.add(await thread.call(threading.get_ident))
        thread.work = step
        thread.wake()
        await stepped.wait()

    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_a_call_gets_its_own_error():
    """The thread lives on."""
    thread = ComputeThread()
    async with owned_tasks() as spawn:
        spawn(thread.run(), "compute")
        with pytest.raises(ZeroDivisionError):
            await thread.call(lambda: 1 // 0)
        assert await thread.call(lambda: 42) == 42


async def test_an_error_of_a_step_ends_the_program():
    """Nothing goes on as if nothing had happened."""
    thread = ComputeThread()

    def step():
        raise RuntimeError("a fault")

    thread.work = step
    with pytest.raises(RuntimeError, match="a fault"):
        await thread.run()


async def test_work_goes_on_without_being_woken_while_there_is_more():
    """A step that says so is followed by the next at once, with calls in between."""
    thread = ComputeThread()
    left = [1000]

    done = asyncio.Event()

    def step():
        left[0] = max(0, left[0] - 1)
        if not left[0]:
            thread.tell_loop(done.set)
        return left[0] > 0

    async with owned_tasks() as spawn:
        spawn(thread.run(), "compute")
        thread.work = step
        thread.wake()
        await done.wait()
        assert await thread.call(lambda: left[0]) == 0


async def test_calls_that_nobody_answers_any_more_are_cancelled():
    """Also those made after the end: whoever waits for one ends as well."""
    thread = ComputeThread()
    begun, released = threading.Event(), threading.Event()

    def block():
        begun.set()
        released.wait(10)

    async with owned_tasks() as spawn:
        running = spawn(thread.run(), "compute")
        calls = [asyncio.create_task(thread.call(work)) for work in (block, int, int)]
        await asyncio.to_thread(begun.wait, 10)
        running.cancel()
        await asyncio.sleep(0)
        calls.append(asyncio.create_task(thread.call(int)))
        await asyncio.sleep(0)
        released.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert outcomes[0] is None
    assert [type(outcome) for outcome in outcomes[1:]] == [asyncio.CancelledError] * 3
