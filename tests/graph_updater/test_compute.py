"""The compute thread."""

from __future__ import annotations

import asyncio
import threading

import pytest

from graph_updater.compute import ComputeThread


async def test_calls_run_one_after_the_other_in_one_thread():
    """The order of the calls is the order of the work, and none overlap."""
    seen, threads = [], set()

    def work(number):
        threads.add(threading.get_ident())
        seen.append(number)
        return number

    with ComputeThread() as compute:
        results = await asyncio.gather(*(compute(work, number) for number in range(50)))

    assert results == seen == list(range(50))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_what_the_work_raises_comes_out_of_the_call():
    """Errors are the caller's."""
    with ComputeThread() as compute:
        with pytest.raises(ZeroDivisionError):
            await compute(lambda: 1 / 0)
        assert await compute(max, 1, 2) == 2
