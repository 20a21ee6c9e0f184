"""A machine's clock that jumps by an hour, forward and back, while a program runs on it. The programs run inside the
test, with a clock that can be set: other programs' clocks stay right, as on another machine.
"""

from __future__ import annotations

from collections import Counter

import pytest
import pytest_asyncio
from brokers import TestBroker
from updater_contract import clicks
from updater_world import UpdaterWorld
from worker_lab import WorkerLab, requests

from loadgen.fault_site import MODES
from runtime.clock import SystemClock

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
HOUR_MS = 3_600_000


class SettableClock(SystemClock):
    """The machine's clock, and how far its wall time is off."""

    def __init__(self):
        self.off_ms = 0

    def wall_ms(self):
        return super().wall_ms() + self.off_ms


@pytest_asyncio.fixture(loop_scope="session")
async def broker(one_broker_cluster, tmp_path):
    """The broker, with names of this test's own."""
    return TestBroker(one_broker_cluster.bootstrap_servers, f"clock-{tmp_path.name}")


@pytest.mark.parametrize("mode", MODES)
async def test_a_worker_answers_whatever_its_clock_says(broker, tiny_bundle_folder, mode):
    """Before and after each jump every request is answered, once, be it with the wrong idea of what is late."""
    lab, clock = WorkerLab(broker, tiny_bundle_folder), SettableClock()
    await lab.prepare()
    async with lab.worker(lab.settings(kafka={"delivery": mode}), clock):
        for number, off_ms in enumerate((0, HOUR_MS, -HOUR_MS, 0)):
            clock.off_ms = off_ms
            await lab.ask(*requests(20, first=20 * number))
            await lab.scores(20 * (number + 1))
    answers = Counter(scores.request_id for scores in await lab.scores(80))
    assert answers == Counter(f"r{number}" for number in range(80))


async def test_an_updater_counts_whatever_its_clock_says(broker, tiny_bundle, tiny_bundle_folder, tmp_path):
    """After each jump the states are those of an undisturbed run."""
    world, clock = UpdaterWorld(broker, tiny_bundle, tiny_bundle_folder, tmp_path), SettableClock()
    await world.create()
    async with world.running(clock=clock):
        for number, off_ms in enumerate((0, HOUR_MS, -HOUR_MS, 0)):
            clock.off_ms = off_ms
            await world.send(*clicks(50, first=50 * number))
            await world.published.until_equal()
    await world.published.stop()
    assert world.published.dead_letters == []
