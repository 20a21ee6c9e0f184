"""Programs killed, frozen, ended and added under load: no request is lost, and exactly once stays exactly once."""

from __future__ import annotations

import signal

import pytest

from loadgen.fault_site import LONGER_THAN_ANY_TIMEOUT_S, MODES

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
IN_FLIGHT = 40
"""Requests sent at once before a program is disturbed, so that it is in the midst of some."""


async def test_killed_at_random_moments(lab):
    """Workers of both modes and updaters die without warning, again and again, and are started anew."""
    async with lab.load():
        for letter in "abab":
            for kind in (*MODES, "updater"):
                await lab.a_moment()
                await lab.traffic.burst(IN_FLIGHT)
                await lab.restart(f"{kind}-{letter}")
    await lab.keeps_its_promises()


async def test_asked_to_end_under_load(lab):
    """Half of the programs end in order: with status 0, and not one request is answered twice, in either mode."""
    async with lab.load():
        await lab.a_moment()
        await lab.traffic.burst(IN_FLIGHT)
        statuses = await lab.drain(*(f"{mode}-a" for mode in MODES), "updater-a")
        await lab.a_moment()
    assert statuses == [0, 0, 0]
    await lab.keeps_its_promises(once=MODES)


async def test_frozen_until_others_have_taken_over(lab):
    """A process that sleeps beyond its session wakes up as a member that has lost everything, and harms nothing."""
    frozen = [*(f"{mode}-a" for mode in MODES), "updater-a"]
    async with lab.load():
        await lab.a_moment()
        await lab.traffic.burst(IN_FLIGHT)
        await lab.a_moment(0.0, 0.2)
        for name in frozen:
            lab.processes.send(name, signal.SIGSTOP)
        await lab.wait(LONGER_THAN_ANY_TIMEOUT_S)
        for name in frozen:
            lab.processes.send(name, signal.SIGCONT)
        await lab.a_moment()
    await lab.keeps_its_promises()


async def test_one_worker_then_three_then_one(lab):
    """Workers join and leave under load, in both modes."""
    async with lab.load():
        assert set(await lab.drain(*(f"{mode}-b" for mode in MODES))) == {0}
        more = [f"{mode}-{letter}" for mode in MODES for letter in "bc"]
        await lab.start(*more)
        await lab.ready(*more)
        await lab.a_moment()
        assert set(await lab.drain(*more)) == {0}
        await lab.a_moment()
    await lab.keeps_its_promises()
