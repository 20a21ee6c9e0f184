"""Viewers get the newest snapshot and wait for nobody."""

from __future__ import annotations

import asyncio

import pytest

from worker.live.viewers import TooManyViewers, Viewers


async def test_every_viewer_gets_each_snapshot():
    """From the next one on."""
    viewers = Viewers()
    viewers.publish(b"before")
    waiting = [asyncio.create_task(anext(viewers.snapshots())) for _ in range(3)]
    await asyncio.sleep(0)
    viewers.publish(b"now")

    assert await asyncio.gather(*waiting) == [b"now"] * 3


async def test_a_slow_viewer_skips_what_it_was_too_late_for():
    """Nothing is kept for it: the next that it gets is the newest then."""
    viewers = Viewers()
    snapshots = viewers.snapshots()
    first = asyncio.create_task(anext(snapshots))
    await asyncio.sleep(0)
    viewers.publish(b"1")
    assert await first == b"1"
    for number in (b"2", b"3"):
        viewers.publish(number)  # nobody waits: it is still busy with the first
    later = asyncio.create_task(anext(snapshots))
    await asyncio.sleep(0)
    assert not later.done()
    viewers.publish(b"4")

    assert await later == b"4"


async def test_places_are_limited_and_come_free():
    """Whoever finds none is told; a place is free again once its viewer has gone, in whatever way."""
    viewers = Viewers(most=1)
    with viewers.place():
        assert len(viewers) == 1
        with pytest.raises(TooManyViewers, match="1 viewers"), viewers.place():
            pass
        assert len(viewers) == 1
    with pytest.raises(ConnectionResetError), viewers.place():
        raise ConnectionResetError
    assert len(viewers) == 0


async def test_closing_ends_all():
    """Those that wait and those that come later."""
    viewers = Viewers()
    waiting = asyncio.create_task(anext(viewers.snapshots(), b"end"))
    await asyncio.sleep(0)
    viewers.close()

    assert await waiting == b"end"
    assert await anext(viewers.snapshots(), b"end") == b"end"
