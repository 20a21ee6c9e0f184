"""Members of an updater group that take part in elections."""

from __future__ import annotations

import asyncio
import contextlib

from brokers import TestBroker

from graph_updater.publication.standby import Leadership
from runtime.clock import SystemClock
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness


@contextlib.asynccontextmanager
async def member(broker: TestBroker, topic: str, group_id: str):
    """A member of the group that runs until the block ends."""
    outages = Outages(Readiness(), SystemClock())
    leadership = Leadership(broker.settings(), broker.settings(), topic, group_id, outages)
    running = asyncio.create_task(leadership.run())
    try:
        yield leadership
    finally:
        running.cancel()
        await asyncio.wait([running])
        await leadership.stop()
