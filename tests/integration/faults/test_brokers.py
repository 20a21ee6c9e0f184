"""Brokers paused, restarted, killed and cut off under load: every outage is waited out, and nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from loadgen.fault_site import LONGER_THAN_ANY_TIMEOUT_S

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
CUT_S = 20.0


async def test_restarted(lab):
    """The only broker goes and comes back."""
    async with lab.load():
        await lab.a_moment()
        await asyncio.to_thread(lab.cluster.brokers[0].restart)
        await lab.a_moment()
    await lab.keeps_its_promises()


async def test_paused_for_longer_than_every_timeout(lab):
    """Connections stay open and nothing answers, for longer than any request, session or transaction may take."""
    (broker,) = lab.cluster.brokers
    async with lab.load():
        await lab.a_moment()
        broker.pause()
        try:
            await lab.wait(1.5 * LONGER_THAN_ANY_TIMEOUT_S)
        finally:
            broker.resume()
        await lab.a_moment()
    await lab.keeps_its_promises()


async def test_cut_off_from_the_network(lab):
    """Requests pile up at the broker while the programs cannot reach it; then every one of them is answered."""
    async with lab.load():
        await lab.a_moment()
        lab.cluster.cut()
        try:
            await lab.wait(CUT_S)
        finally:
            lab.cluster.mend()
        await lab.a_moment()
    await lab.keeps_its_promises()


async def test_one_of_three_killed(replicated_lab):
    """The others go on without it, and take it back."""
    lab = replicated_lab
    victim = lab.random.choice(lab.cluster.brokers[1:])
    async with lab.load():
        await lab.a_moment()
        victim.kill()
        await lab.wait(LONGER_THAN_ANY_TIMEOUT_S)
        await asyncio.to_thread(victim.restart)
        await lab.a_moment()
    await lab.keeps_its_promises()
