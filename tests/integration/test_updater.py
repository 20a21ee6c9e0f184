"""The updater on real Kafka: everything that it promises, also where processes are killed or frozen."""

from __future__ import annotations

import asyncio

import pytest
from updater_contract import UpdaterContract, clicks

pytestmark = pytest.mark.slow


class TestRealKafka(UpdaterContract):
    """Everything that the updater must bring about."""

    async def test_killed_at_any_moment_it_ends_as_if_undisturbed(self, world):
        """Killed again and again, before, during and after snapshots: every embedding is as it should be."""
        sent = 0
        for pause_s in (2.5, 3.0, 3.7):
            with world.process() as updater:
                await world.send(*clicks(100, first=sent), b"rubbish %d" % sent)
                await asyncio.sleep(pause_s)
                await world.send(*clicks(100, first=sent + 100))
                updater.kill()
                sent += 200

        with world.process() as updater:
            await world.published.until_equal()
            await world.published.until(lambda: len(world.published.dead_letters) >= 3)
            assert updater.terminate() == 0
        assert await world.published.quiet() == 0
        assert len(world.published.dead_letters) == 3

    async def test_a_standby_takes_over_within_ten_seconds_of_a_kill(self, world):
        """The group notices the silence; what the dead leader had not published is published by the other."""
        with world.process() as leader:
            await world.send(*clicks(100))
            await world.published.until_equal()
            async with world.running():
                await world.send(*clicks(100, first=100), b"rubbish")
                leader.kill()
                await world.send(*clicks(100, first=200))
                await world.published.until_equal(limit_s=10.0)
                await world.published.until(lambda: world.published.dead_letters)
        assert await world.published.quiet() == 0
        assert len(world.published.dead_letters) == 1

    async def test_a_leader_that_wakes_up_finds_itself_fenced_off(self, world):
        """Frozen until another one leads, then awake: it stands by, publishes nothing, leads again when asked to."""
        with world.process() as frozen:
            await world.send(*clicks(100))
            await world.published.until_equal()
            async with world.running() as other:
                await world.send(*clicks(50, first=100), b"rubbish one")
                frozen.freeze()
                await world.send(*clicks(50, first=150), b"rubbish two")
                await world.published.until_equal()
                frozen.thaw()
                await world.send(*clicks(50, first=200), b"rubbish three")
                await world.published.until_equal()
                await world.published.quiet(3.0)
                await other.drain()
                await world.send(*clicks(50, first=250), b"rubbish four")
                await world.published.until_equal()
                await world.published.until(lambda: len(world.published.dead_letters) >= 4)
        assert await world.published.quiet() == 0
        assert len(world.published.dead_letters) == 4
